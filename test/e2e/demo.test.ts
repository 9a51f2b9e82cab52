import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import postgres from 'postgres';
import { afterEach, expect, test } from 'vitest';
import { until } from '../support/database.ts';
import { PROGRAM } from '../support/program.ts';

interface Demo {
  readonly child: ChildProcess;
  readonly directory: string;
  output(): string;
  /** resolves with the exit code once all output is read */
  ended(): Promise<number | null>;
}

const running: Demo[] = [];
afterEach(async () => {
  for (const { child, directory } of running.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    rmSync(directory, { recursive: true, force: true });
  }
});

/** Runs the demo, with a small history, in a temporary directory of its own. */
function startDemo(...flags: string[]): Demo {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-e2e-'));
  // as root the server runs as another user
  chmodSync(directory, 0o755);
  const child = spawn(process.execPath, [...PROGRAM, 'demo', '--history', '500', ...flags], {
    env: { ...process.env, TMPDIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const closed = once(child, 'close');
  const demo = {
    child,
    directory,
    output: () => output,
    ended: async () => {
      await closed;
      return child.exitCode;
    },
  };
  running.push(demo);
  return demo;
}

async function expectNothingLeft(demo: Demo): Promise<void> {
  expect(readdirSync(demo.directory).filter((name) => name.startsWith('smslogd'))).toEqual([]);
  expect(spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).stdout).not.toContain(demo.directory);
  const page = /status page +(\S+)/.exec(demo.output())![1]!;
  // no daemon answers any more
  await expect(fetch(page)).rejects.toThrow('fetch failed');
}

function openLog(demo: Demo): postgres.Sql {
  return postgres(/psql (postgres:\S+)/.exec(demo.output())![1]!, { max: 1, onnotice: () => {} });
}

/** The result, in one line. */
function result(demo: Demo): string | undefined {
  return /^Result: [^]*?(?=\n\n)/m.exec(demo.output())?.[0].replaceAll('\n', ' ');
}

test('the demo goes through every phase, finds the log right and leaves nothing behind', async () => {
  const demo = startDemo('--seconds', '8');
  const code = await demo.ended();
  expect(result(demo)).toMatch(
    /^Result: right\. Each of the [\d,]+ SMS is in the log exactly once, with its correct status\.$/,
  );
  expect(code).toBe(0);
  const phases = [
    'history    two days, ',
    'status page   http://127.0.0.1:',
    'psql postgres://',
    'curl http://127.0.0.1:',
    'copied     ',
    'live       ',
    'kill -9    ',
    'restarted  1.5 s later; ',
    'stopping   the time is up: ',
    'stopped    all is in the log; the daemon ended on SIGTERM ',
    'yesterday*',
    'wrong: 0 missing, 0 doubled, 0 differing',
    'Result: ',
    'To go on:',
  ];
  const places = phases.map((phase) => demo.output().indexOf(phase));
  expect(places.toSorted((a, b) => a - b)).toEqual(places);
  expect(places[0]).toBeGreaterThan(0);
  for (const line of demo.output().split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  expect(demo.output()).not.toMatch(/\+380\d/);
  await expectNothingLeft(demo);
});

test('a row that is changed behind its back makes the result wrong, also when Ctrl-C ends it', async () => {
  const demo = startDemo();
  await until('live traffic', () => demo.output().includes('live       '));
  const sql = openLog(demo);
  await sql`update verification.sms_log set phone_number = '+380000000000'
             where id = (select id from verification.sms_log where gateway_status = 'Delivered' limit 1)`;
  await sql.end();
  demo.child.kill('SIGINT');
  expect(await demo.ended()).toBe(1);
  expect(demo.output()).toContain('interrupted: ');
  expect(demo.output()).toContain('differing in: phone 1');
  expect(result(demo)).toMatch(
    /^Result: WRONG\. Of [\d,]+ SMS 0 are missing in the log, 0 rows are doubled and 1 have wrong data\.$/,
  );
  await expectNothingLeft(demo);
});

test('a second Ctrl-C ends it at once, and still nothing is left behind', async () => {
  const demo = startDemo();
  await until('live traffic', () => demo.output().includes('live       '));
  const sql = openLog(demo);
  // while the log is locked there is no orderly end
  const locked = sql.unsafe('begin; lock table verification.sms_log; select pg_sleep(600)').catch(() => 'gone');
  await until('the lock', async () => {
    const other = openLog(demo);
    const rows =
      await other`select from pg_locks where relation = 'verification.sms_log'::regclass and granted and mode = 'AccessExclusiveLock'`;
    await other.end();
    return rows.length === 1;
  });
  demo.child.kill('SIGINT');
  await until('the first Ctrl-C', () => demo.output().includes('interrupted: '));
  const interrupting = setInterval(() => demo.child.kill('SIGINT'), 50);
  const code = await demo.ended();
  clearInterval(interrupting);
  expect(code).toBe(130);
  expect(demo.output()).not.toContain('Result: ');
  expect(await locked).toBe('gone');
  await sql.end({ timeout: 0 });
  await expectNothingLeft(demo);
});

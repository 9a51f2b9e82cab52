/** Faults of the daemons: killed, frozen, terminated, started with other settings; their clocks and logs; and `migrate` beside them. */
import { setTimeout as delay } from 'node:timers/promises';
import { join } from 'node:path';
import { startBouncer } from '../../support/bouncer.ts';
import { startProcess } from '../../support/daemon.ts';
import { DAEMON_ROLE } from '../../../src/demo/roles.ts';
import type { Member, Stage } from '../stage.ts';
import { smallDisk } from './disk.ts';
import { leading, pick, someMember, type Fault } from './fault.ts';

const killed = async (members: readonly Member[]) => {
  await Promise.all(members.map((member) => member.kill()));
  return async () => members.forEach((member) => member.start());
};
const frozen = async (members: readonly Member[]) => {
  members.forEach((member) => member.freeze());
  return async () => members.forEach((member) => member.thaw());
};

/** What a process was told and how it took it: the contract gives it 10 s and exit code 0. */
export const terminated: { name: string; code: number | string; ms: number }[] = [];

async function terminate(member: Member): Promise<void> {
  const { daemon } = member;
  if (daemon === undefined) return;
  const end = await member.stop();
  // a Node.js that has not come to the program yet ends by the signal
  if (daemon.lines.length > 0) terminated.push({ name: member.name, ...end });
}

async function restart(member: Member, settings: Record<string, string>): Promise<void> {
  await terminate(member);
  member.settings = settings;
  member.start();
}

const SETTINGS: readonly Record<string, string>[] = [
  { IP2SMS_FORMAT: 'json' },
  { IP2SMS_MAX_CONCURRENCY: '1' },
  { IP2SMS_MAX_RPS: '5' },
  { LOG_LEVEL: 'debug' },
  { LOOPS: 'poller' },
  { LOOPS: 'mirror' },
  { DATABASE_POOLED: 'true' },
  { IP2SMS_TIMEOUT_MS: '500' },
  { SMS_STATUSES_EXPIRATION: '1.5' },
];

/** `migrate` as the owner, by `count` processes at once; their exit codes. */
export async function migrateAtOnce(
  stage: Stage,
  count: number,
): Promise<{ code: number | string; last: string | undefined }[]> {
  const program = stage.program === undefined ? [] : [stage.program];
  const migrations = Array.from({ length: count }, () =>
    startProcess(['migrate', '--role', DAEMON_ROLE], stage.db.owner.env(), ...program),
  );
  return await Promise.all(
    migrations.map(async ({ exited, stderr }) => ({ code: await exited, last: stderr().trim() || undefined })),
  );
}

export const DAEMON_FAULTS = {
  'leader killed': async (doing) => killed([await leading(doing)]),
  'leader terminated': async (doing) => {
    const member = await leading(doing);
    await terminate(member);
    return async () => member.start();
  },
  'leader frozen': async (doing) => frozen([await leading(doing)]),
  'daemon killed': async (doing) => killed([someMember(doing)]),
  'daemon frozen': async (doing) => frozen([someMember(doing)]),
  'all daemons killed': async ({ stage }) => killed(stage.members),
  'all daemons frozen': async ({ stage }) => frozen(stage.members),
  'daemon killed again and again': async (doing) => {
    const member = someMember(doing);
    const over = new AbortController();
    const loop = (async () => {
      while (!over.signal.aborted) {
        await member.kill();
        member.start();
        await delay(300 + 2_000 * (doing.draws[1] ?? 0));
      }
    })();
    return async () => {
      over.abort();
      await loop;
    };
  },
  'daemon with other settings': async (doing) => {
    const member = someMember(doing);
    await restart(member, pick(SETTINGS, doing.draws[1]));
    return () => restart(member, {});
  },
  'migrate by four': async ({ stage }) => void (await migrateAtOnce(stage, 4)),
  // as an upgrade is done: `migrate` beside the daemons, then one after the other
  upgrade: async ({ stage }) => {
    await migrateAtOnce(stage, 1);
    for (const member of stage.members) {
      await restart(member, {});
      await member.daemon?.url().catch(() => {});
    }
  },
  'clock stepped': async (doing) => {
    const member = someMember(doing);
    const most = pick([3_000, 90_000, 7_200_000, 40_000_000_000], doing.draws[1]);
    member.stepClock(Math.round(most * (2 * (doing.draws[2] ?? 0) - 1)));
    return async () => member.stepClock(0);
  },
  // its log is a file on a disk of its own, which somebody fills
  'log disk full': async (doing) => {
    const member = someMember(doing);
    const disk = smallDisk(doing.stage.cluster.directory, 1);
    member.logFile = join(disk.path, 'log');
    await restart(member, { LOG_LEVEL: 'debug' });
    await member.daemon?.url().catch(() => {});
    disk.fill(member.logFile);
    // it has something to say
    member.daemon?.kill('SIGHUP');
    return async () => {
      // one of three is stopped while it is full
      if ((doing.draws[1] ?? 0) > 0.33) {
        disk.free();
        await delay(2_000);
      }
      member.logFile = undefined;
      await restart(member, {});
      disk.remove();
    };
  },
  // the queries of a daemon go through it, and it goes down again and again; the stream goes direct
  'PgBouncer restarted': async (doing) => {
    const { stage, draws } = doing;
    const member = someMember(doing);
    const bouncer = await startBouncer({
      url: stage.db.url,
      pool: 2 + Math.floor(6 * (draws[1] ?? 0)),
    });
    await restart(member, { DATABASE_URL: bouncer.url });
    const over = new AbortController();
    const loop = (async () => {
      for (;;) {
        await delay(1_000 + 7_000 * (draws[2] ?? 0), undefined, { signal: over.signal }).catch(() => {});
        if (over.signal.aborted) return;
        await bouncer.restart();
      }
    })();
    return async () => {
      over.abort();
      await loop;
      await restart(member, {});
      await bouncer.close();
    };
  },
} satisfies Record<string, Fault>;

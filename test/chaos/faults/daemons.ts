/** Faults of the daemons: killed, frozen, terminated, started with other settings; and `migrate` beside them. */
import { setTimeout as delay } from 'node:timers/promises';
import { startProcess } from '../../support/daemon.ts';
import { DAEMON_ROLE } from '../../../src/demo/roles.ts';
import type { Member, Stage } from '../stage.ts';
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
    const restart = async (settings: Record<string, string>) => {
      await terminate(member);
      member.settings = settings;
      member.start();
    };
    await restart(pick(SETTINGS, doing.draws[1]));
    return () => restart({});
  },
  'migrate by four': async ({ stage }) => void (await migrateAtOnce(stage, 4)),
} satisfies Record<string, Fault>;

/** Faults of the server: stopped, crashed, with other settings; its roles; its disk. */
import { chownSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DAEMON_ROLE, REPLICATION_ROLE } from '../../../src/demo/roles.ts';
import { PASSWORD } from '../../support/postgres.ts';
import type { Stage } from '../stage.ts';
import { smallDisk } from './disk.ts';
import { OURS, pick, stubbornly, type Fault } from './fault.ts';

/** Settings of the server that a reload takes. */
const SETTINGS: readonly Record<string, string>[] = [
  { wal_sender_timeout: '1s' },
  { wal_sender_timeout: '0' },
  { synchronous_commit: 'off' },
  { idle_session_timeout: '1s' },
  { statement_timeout: '300ms' },
  { default_transaction_isolation: 'serializable' },
  { deadlock_timeout: '10ms' },
  { logical_decoding_work_mem: '64kB' },
  { extra_float_digits: '-5', datestyle: 'German', intervalstyle: 'sql_standard', bytea_output: 'escape' },
  { timezone: 'Asia/Kathmandu' },
  { search_path: 'pg_catalog' },
  { jit: 'on', jit_above_cost: '0' },
  { enable_indexscan: 'off', enable_bitmapscan: 'off' },
];

const run = async (stage: Stage, ...statements: string[]) => {
  for (const statement of statements) await stage.sql.unsafe(statement);
};
const endSessions = `select pg_terminate_backend(pid) from pg_stat_activity where ${OURS}`;

/** The role as it is for a while: the sessions end, so that new ones are under it, and again after it. */
const roleFault =
  (during: (draw: number) => string[], after: string[]): Fault =>
  async ({ stage, draws }) => {
    const undo = () => stubbornly(() => run(stage, ...after, endSessions));
    try {
      await run(stage, ...during(draws[0] ?? 0), endSessions);
    } catch (error) {
      await undo();
      throw error;
    }
    return undo;
  };

export const SERVER_FAULTS = {
  'server stopped': async ({ stage }) => {
    await stage.cluster.stop('fast');
    return () => stage.ensureServer();
  },
  'server crashed': async ({ stage }) => {
    await stage.cluster.stop('immediate');
    return () => stage.ensureServer();
  },
  'server killed': async ({ stage }) => {
    await stage.killServer();
    return () => stage.ensureServer();
  },
  'server settings': async ({ stage, draws }) => {
    const chosen = Object.entries(pick(SETTINGS, draws[0]));
    const undo = () =>
      stubbornly(() =>
        run(stage, ...chosen.map(([name]) => `alter system reset ${name}`), 'select pg_reload_conf()', endSessions),
      );
    try {
      await run(
        stage,
        ...chosen.map(([name, value]) => `alter system set ${name} = '${value}'`),
        'select pg_reload_conf()',
        endSessions,
      );
    } catch (error) {
      await undo();
      throw error;
    }
    return undo;
  },
  'role read only': roleFault(
    () => [`alter role ${DAEMON_ROLE} set default_transaction_read_only = on`],
    [`alter role ${DAEMON_ROLE} reset default_transaction_read_only`],
  ),
  'role without login': roleFault(
    (draw) =>
      draw < 0.3
        ? [`alter role ${DAEMON_ROLE} nologin`]
        : draw < 0.6
          ? [`alter role ${REPLICATION_ROLE} nologin`]
          : draw < 0.8
            ? [`alter role ${REPLICATION_ROLE} noreplication`]
            : [`alter role ${DAEMON_ROLE} password 'another'`],
    [
      `alter role ${DAEMON_ROLE} login password '${PASSWORD}'`,
      `alter role ${REPLICATION_ROLE} login replication password '${PASSWORD}'`,
    ],
  ),
  'role with few connections': roleFault(
    (draw) => [`alter role ${draw < 0.7 ? DAEMON_ROLE : REPLICATION_ROLE} connection limit ${Math.floor(draw * 10)}`],
    [`alter role ${DAEMON_ROLE} connection limit -1`, `alter role ${REPLICATION_ROLE} connection limit -1`],
  ),
  'role with timeouts': roleFault(
    (draw) => [
      `alter role ${DAEMON_ROLE} set ${pick(['statement_timeout = 100', 'lock_timeout = 50', 'idle_in_transaction_session_timeout = 100', 'statement_timeout = 15'], draw)}`,
    ],
    ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'].map(
      (name) => `alter role ${DAEMON_ROLE} reset ${name}`,
    ),
  ),
  // commits wait until it is over
  'standby missing': async ({ stage }) => {
    const undo = () =>
      stubbornly(() => run(stage, 'alter system reset synchronous_standby_names', 'select pg_reload_conf()'));
    await run(stage, `alter system set synchronous_standby_names = 'absent'`, 'select pg_reload_conf()');
    return undo;
  },
  'sessions ended': async ({ stage, draws }) => {
    const which = pick(['true', 'true', `pid % 2 = 0`, `application_name like '% control %'`], draws[0]);
    await run(stage, `${endSessions} and ${which}`);
  },
  'stream ended': async ({ stage }) => {
    await run(stage, `${endSessions} and backend_type = 'walsender'`);
  },
  'statements cancelled': async ({ stage, seconds }) => {
    const cancel = `select pg_cancel_backend(pid) from pg_stat_activity where ${OURS} and state <> 'idle'`;
    for (let n = 0; n < 5 + seconds * 10; n += 1) await run(stage, cancel, 'select pg_sleep(0.02)');
  },
  // the log in a tablespace on a disk of its own, which somebody fills
  'disk full': async ({ stage }) => {
    const disk = smallDisk(stage.cluster.directory, 24);
    const undo = async () => {
      disk.free();
      await stubbornly(() =>
        run(
          stage,
          `set lock_timeout = '2s'; alter table verification.sms_log set tablespace pg_default; reset lock_timeout`,
          'drop tablespace if exists chaos_disk',
        ),
      );
      disk.remove();
    };
    try {
      const { uid, gid } = statSync(stage.cluster.dataDirectory);
      const space = join(disk.path, 'space');
      mkdirSync(space, { mode: 0o700 });
      chownSync(space, uid, gid);
      await run(
        stage,
        `create tablespace chaos_disk location '${space}'`,
        `set lock_timeout = '2s'; alter table verification.sms_log set tablespace chaos_disk; reset lock_timeout`,
      );
      disk.fill();
    } catch (error) {
      await undo();
      throw error;
    }
    return undo;
  },
} satisfies Record<string, Fault>;

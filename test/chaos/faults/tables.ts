/** Faults of tables and transactions: locks, rewrites, the owner's DDL, what somebody does to what smslogd owns. */
import { randomUUID } from 'node:crypto';
import { held, pick, stubbornly, type Fault } from './fault.ts';
import { openSession } from '../session.ts';
import type { Stage } from '../stage.ts';

const LOG = 'verification.sms_log';
const SOURCE = 'verification.verifications';
const STATE = ['checkpoint', 'leader', 'settings', 'sms_hourly', 'changed_hour', 'sms_refused', 'migrations'];
const MODES = ['access exclusive', 'access exclusive', 'exclusive', 'share row exclusive', 'share'];

const lock = async (stage: Stage, table: string, draw: number | undefined) =>
  held(stage, [`set local lock_timeout = '5s'`, `lock table ${table} in ${pick(MODES, draw)} mode`]);
const state = (draw: number | undefined) => `smslogd.${pick(STATE, draw)}`;

/** As the owner, with the patience of a migration tool; `back` takes it back. */
const change =
  (there: string, back: string): Fault =>
  async ({ stage }) => {
    const { sql } = stage.db.owner;
    await sql.unsafe(`set lock_timeout = '3s'; ${there}`).simple();
    return () => stubbornly(() => sql.unsafe(`set lock_timeout = '3s'; ${back}`).simple());
  };

const CHANGES: readonly Fault[] = [
  change(
    `alter table ${SOURCE} add column chaos text default 'x'`,
    `alter table ${SOURCE} drop column if exists chaos`,
  ),
  change(
    `alter table ${SOURCE} alter column attempts_count type bigint`,
    `alter table ${SOURCE} alter column attempts_count type integer`,
  ),
  change(`alter table ${SOURCE} alter column code type bigint`, `alter table ${SOURCE} alter column code type integer`),
  change(`alter table ${SOURCE} replica identity full`, `alter table ${SOURCE} replica identity default`),
  change(`alter table ${SOURCE} replica identity nothing`, `alter table ${SOURCE} replica identity default`),
  change(`create index chaos_idx on ${SOURCE} (inserted_at)`, `drop index if exists verification.chaos_idx`),
  change(
    `alter table ${SOURCE} alter column phone_number type text`,
    `alter table ${SOURCE} alter column phone_number type varchar(255)`,
  ),
];
const NEEDED = ['code', 'phone_number', 'gateway_id', 'gateway_status', 'inserted_at'];

const REWRITES = [
  `vacuum full ${LOG}`,
  `vacuum full ${SOURCE}`,
  'vacuum full smslogd.sms_poll',
  'vacuum full smslogd.checkpoint',
  'vacuum full smslogd.leader',
  `cluster ${LOG} using sms_log_pkey`,
  `reindex table ${LOG}`,
  `vacuum (freeze, analyze) ${LOG}`,
  `vacuum (freeze) ${SOURCE}`,
  'vacuum full smslogd.sms_hourly',
];

const SPOILED = [
  `update smslogd.checkpoint set lsn = 'FFFFFFF/0'`,
  `update smslogd.checkpoint set lsn = null`,
  `update smslogd.checkpoint set lsn = '0/1'`,
  `update smslogd.checkpoint set system_id = '1'`,
  `update smslogd.checkpoint set system_id = null`,
  `update smslogd.checkpoint set term = term + 100`,
];

const LEASES = [
  `delete from smslogd.leader`,
  `update smslogd.leader set holder = 'nobody 0 chaos', term = term + 1, renewed_at = clock_timestamp(), expires_at = clock_timestamp() + interval '3 seconds'`,
  `update smslogd.leader set expires_at = '-infinity'`,
  `update smslogd.leader set holder = null`,
];

const ROWS = [
  `select from ${LOG} order by random() limit 300 for update`,
  `select from ${LOG} where gateway_status in ('Accepted', 'Enroute') for update`,
  'select from smslogd.sms_poll order by random() limit 300 for update',
  'select from smslogd.sms_poll for update',
  'select from smslogd.checkpoint for update',
  'select from smslogd.leader for update',
  'select from smslogd.settings for update',
  `select from ${SOURCE} order by random() limit 300 for update`,
];

export const TABLE_FAULTS = {
  'queue emptied': async ({ stage, draws }) => {
    const statement = pick(['truncate smslogd.sms_poll', 'delete from smslogd.sms_poll'], draws[0]);
    await stage.sql.unsafe(`set lock_timeout = '3s'; ${statement}; reset lock_timeout`).simple();
  },
  'queue locked': ({ stage, draws }) => lock(stage, 'smslogd.sms_poll', draws[0]),
  'checkpoint deleted': async ({ stage }) => void (await stage.sql`delete from smslogd.checkpoint`),
  'checkpoint spoiled': async ({ stage, draws }) => void (await stage.sql.unsafe(pick(SPOILED, draws[0]))),
  'lease stolen': async ({ stage, draws }) => void (await stage.sql.unsafe(pick(LEASES, draws[0]))),
  'log locked': ({ stage, draws }) => lock(stage, LOG, draws[0]),
  'source locked': ({ stage, draws }) => lock(stage, SOURCE, draws[0]),
  'state locked': ({ stage, draws }) => lock(stage, state(draws[1]), draws[0]),
  'rows locked': ({ stage, draws }) => held(stage, [`set local lock_timeout = '5s'`, pick(ROWS, draws[0])]),
  'table rewritten': async ({ stage, draws }) => {
    const session = openSession(stage.address(), '-c lock_timeout=10s');
    try {
      await session.query(pick(REWRITES, draws[0]));
    } finally {
      await session.end();
    }
  },
  'owner changes a table': (doing) => pick(CHANGES, doing.draws[0])(doing),
  'needed column away': (doing) => {
    const column = pick(NEEDED, doing.draws[0]);
    const there = `alter table ${SOURCE} rename column ${column} to chaos_${column}`;
    const back = `do $$ begin if exists (select from pg_attribute where attrelid = '${SOURCE}'::regclass and attname = 'chaos_${column}') then
      alter table ${SOURCE} rename column chaos_${column} to ${column}; end if; end $$`;
    return change(there, back)(doing);
  },
  'source away': change(
    `alter table ${SOURCE} rename to chaos_away`,
    `alter table if exists verification.chaos_away rename to verifications`,
  ),
  'long transaction': ({ stage, draws }) =>
    held(
      stage,
      pick(
        [
          ['select pg_current_xact_id()'],
          ['set transaction isolation level repeatable read', `select count(*) from ${LOG}`],
          ['create temporary table chaos_held (n int)', `select count(*) from ${SOURCE}`],
        ],
        draws[0],
      ),
    ),
  // they stay over crashes
  'prepared transactions': async ({ stage, draws }) => {
    const session = openSession(stage.address());
    const names: string[] = [];
    try {
      for (let n = 0; n < 3; n += 1) {
        const name = `held ${randomUUID()}`;
        await session.query(`begin; insert into chaos.filler values ('x'); prepare transaction '${name}'`);
        names.push(name);
      }
    } finally {
      await session.end();
    }
    return () =>
      stubbornly(async () => {
        const there = await stage.sql<
          { gid: string }[]
        >`select gid from pg_prepared_xacts where gid in ${stage.sql(names)}`;
        for (const { gid } of there)
          await stage.sql.unsafe(`${(draws[1] ?? 0) < 0.5 ? 'commit' : 'rollback'} prepared '${gid}'`);
      });
  },
} satisfies Record<string, Fault>;

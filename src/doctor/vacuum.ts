/** The check of what vacuum cannot remove: dead rows pile up behind an old snapshot, wherever it is held. */
import { quoteLiteral } from '../postgres/quoting.ts';
import type { Sql } from '../postgres/pools.ts';
import { ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

/** More dead rows than a minute of work leaves between two runs of autovacuum, and a tenth of what is alive. */
const PILE = 100_000;
const SHARE = 0.1;

export const vacuumChecks: readonly Check<Found>[] = [
  needing('dead rows', ['sql', 'migrated'], async ({ sql }) => {
    const piles = await sql<{ name: string; dead: number }[]>`
      select relid::regclass::text as name, n_dead_tup::float8 as dead from pg_stat_all_tables
       where (relid = 'verification.sms_log'::regclass or schemaname = 'smslogd')
         and n_dead_tup > ${PILE}::int8 and n_dead_tup > ${SHARE}::float8 * n_live_tup
       order by n_dead_tup desc`;
    if (piles.length === 0) return ok(`no table of smslogd has more than ${PILE}`);
    const said = piles.map(({ name, dead }) => `${name} ${dead}`).join(', ');
    const holder = await oldestSnapshot(sql);
    if (holder === undefined)
      return warn(
        `vacuum is behind, though no old transaction holds it up: ${said}`,
        piles.map(({ name }) => `vacuum ${name};`).join(' '),
      );
    return warn(
      `vacuum cannot remove those that are younger than ${nameOf(holder)}: ${said}`,
      FIXES[holder.kind](holder),
    );
  }),
];

interface Holder {
  readonly kind: 'session' | 'standby' | 'prepared' | 'slot';
  /** of a prepared transaction its gid, of a slot its name, else the application */
  readonly name: string;
  readonly pid: number | null;
  /** null: of another role's session it is hidden */
  readonly seconds: number | null;
  /** in transactions */
  readonly age: number;
}

const FIXES: Readonly<Record<Holder['kind'], (holder: Holder) => string>> = {
  session: ({ pid }) => `select pg_terminate_backend(${pid}); -- or wait for its end`,
  standby: () => 'alter system set hot_standby_feedback = off; -- on the standby, or end the long query there',
  prepared: ({ name }) => `rollback prepared ${quoteLiteral(name)}; -- or: commit prepared`,
  slot: ({ name }) => `select pg_drop_replication_slot(${quoteLiteral(name)}); -- if nobody needs it any more`,
};

function nameOf({ kind, name, pid, seconds, age }: Holder): string {
  const since = seconds === null ? `${age} transactions old` : `${seconds} s old`;
  if (kind === 'prepared') return `the prepared transaction ${name}, ${since}`;
  if (kind === 'slot') return `the feedback of a standby through the slot ${name}, ${since}`;
  if (kind === 'standby') return `the feedback of the standby ${name} (pid ${pid}), ${since}`;
  return `the transaction of ${name === '' ? 'a session without an application name' : name} (pid ${pid}), ${since}`;
}

/** Who holds the oldest snapshot that vacuum in this database minds, our own session apart; undefined where none is older than the next transaction. */
async function oldestSnapshot(sql: Sql): Promise<Holder | undefined> {
  const [holder] = await sql<Holder[]>`
    select * from (
      select case when r.pid is null then 'session' else 'standby' end as kind, a.application_name as name, a.pid,
             extract(epoch from now() - a.xact_start)::int as seconds, greatest(age(a.backend_xid), age(a.backend_xmin)) as age
        from pg_stat_activity a left join pg_stat_replication r on r.pid = a.pid
       where a.pid <> pg_backend_pid() and (a.datname = current_database() or r.pid is not null)
      union all
      select 'prepared', gid, null, extract(epoch from now() - prepared)::int, age(transaction)
        from pg_prepared_xacts where database = current_database()
      union all
      select 'slot', slot_name, active_pid, null, age(xmin) from pg_replication_slots
    ) holders where age > 1 order by age desc limit 1`;
  return holder;
}

/**
 * What must hold once it is calm, each by plain SQL over source, log and book, or by what the daemons show. Some must come true within a stated time of the calm.
 * They share no code with the product.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { startProcess } from '../support/daemon.ts';
import { migrateAtOnce } from './faults/daemons.ts';
import { KEEPALIVE_S } from './faults/paths.ts';
import { personalIn } from './personal.ts';
import { LIFE_MINUTES, type Stage } from './stage.ts';
import { untrue, type Logged } from './truth.ts';
import { finalStays, SESSIONS } from './watch.ts';
import type { Workload } from './workload.ts';

/** Seconds from the calm on, on a machine of its own: until the log is complete, until the daemons are well, and until what they show follows. */
const COMPLETE_S = 45;
const WELL_S = 60;
const SHOWN_S = 90;
/** After its life an SMS is open for so long at most; a queue that somebody emptied is filled again each 3 minutes. */
const OVERDUE_S = 400;
const RETAINED_BYTES = 8 * 1024 * 1024;
/** Prepared statements that pile up would need more; compiled plans need some. */
const SESSION_BYTES = 96 * 1024 * 1024;
const TEXT = 'Код авторизації дій в системі eHealth: ';
const FINAL = `('Delivered', 'Expired', 'Deleted', 'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated')`;
const ZONE = 'Europe/Kyiv';

/** What is wrong; none: nothing. */
type Look = (stage: Stage, workload: Workload) => Promise<string[]>;

/** Memory of a process that it shares with no other; bytes. */
function ownMemory(pid: number): number {
  try {
    return 1024 * Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** How many, where not none. */
const counted = (what: string, n: number | undefined) => (n === 0 ? [] : [`${n} ${what}`]);

/** Every daemon lives and is ready, one of them leads, and a slot is read. */
export const WELL: Look = async ({ members, sql }) => {
  const wrong: string[] = [];
  let leads = 0;
  for (const { name, url } of members) {
    if (url === undefined) {
      wrong.push(`${name} is not there`);
      continue;
    }
    for (const path of ['/healthz', '/readyz']) {
      const response = await fetch(url + path, { signal: AbortSignal.timeout(10_000) });
      const text = await response.text();
      if (response.status !== 200) wrong.push(`${name}: ${path} ${response.status} ${text.slice(0, 200)}`);
    }
    const metrics = await (await fetch(`${url}/metrics`)).text();
    if (/^smslogd_mirror_state\{state="streaming"\} 1$/m.test(metrics)) leads += 1;
  }
  if (leads !== 1) wrong.push(`${leads} daemons stream`);
  const [slot] = await sql`select from pg_replication_slots where active and plugin = 'pgoutput'`;
  if (slot === undefined) wrong.push('no slot is read');
  return wrong;
};

/** How many SMS of each type were open at the last looks of a calm. */
export const seen = new Map<string, number[]>();

/** Become true within so many seconds; in this order. */
export const SOON: Readonly<Record<string, readonly [seconds: number, Look]>> = {
  'every committed verification is in the log': [
    COMPLETE_S,
    async ({ sql }) => {
      const [row] = await sql`
      select count(*)::int as n from verification.verifications v where not exists (select from verification.sms_log l where l.id = v.id)`;
      return counted('verifications are missing', row!['n'] as number);
    },
  ],
  'gateway ids that came in time are in the log': [
    COMPLETE_S,
    async ({ sql }) => {
      const [row] = await sql`
      select count(*)::int as n from verification.verifications v join verification.sms_log l using (id) left join chaos.late t using (id)
       where v.gateway_id is distinct from l.gateway_id
         and (l.gateway_status = 'Unaccepted' and t.at > l.status_changed_at - interval '2 seconds') is not true`;
      return counted('gateway ids are missing or others', row!['n'] as number);
    },
  ],
  'every daemon lives and is ready, one of them streams, and a slot is read': [WELL_S, WELL],
  'no reconcile is due': [
    WELL_S,
    async ({ sql }) => {
      const rows = await sql<
        { due: string }[]
      >`select reconcile_due as due from smslogd.checkpoint where reconcile_due is not null`;
      return rows.map(({ due }) => `a reconcile is due: ${due}`);
    },
  ],
  'metrics say what a count of the log says': [
    SHOWN_S,
    async ({ members, sql }) => {
      const truth = await sql<{ type: string; total: number; open: number }[]>`
      select type, count(*)::int as total, (count(*) filter (where gateway_status is null or gateway_status not in ${sql.unsafe(FINAL)}))::int as open
        from verification.sms_log group by 1`;
      const wrong: string[] = [];
      for (const { name, url } of members) {
        const metrics = await (await fetch(`${url}/metrics`)).text();
        const sum = (metric: string, type: string) =>
          [...metrics.matchAll(new RegExp(`^${metric}\\{(?:[^}]*,)?type="${type}"[^}]*\\} (\\S+)$`, 'gm'))].reduce(
            (all, [, value]) => all + Number(value),
            0,
          );
        for (const { type, total, open } of truth) {
          if (sum('smslogd_sms_total', type) !== total)
            wrong.push(
              `${name}: smslogd_sms_total of ${type} is ${sum('smslogd_sms_total', type)}, the log has ${total}`,
            );
          // they end while the metrics are read
          const most = Math.max(open, ...(seen.get(type) ?? []));
          seen.set(type, [...(seen.get(type) ?? []), open].slice(-60));
          const shown = sum('smslogd_sms_open', type);
          if (shown < open || shown > most)
            wrong.push(`${name}: smslogd_sms_open of ${type} is ${shown}, the log has ${open} to ${most}`);
        }
      }
      return wrong;
    },
  ],
  'the slot keeps little WAL': [
    SHOWN_S,
    async ({ sql }) => {
      // it writes what the slot goes forward by: who is in a transaction
      await sql`checkpoint`;
      const rows = await sql<
        { bytes: number }[]
      >`select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 as bytes from pg_replication_slots`;
      return rows.filter(({ bytes }) => bytes > RETAINED_BYTES).map(({ bytes }) => `${bytes} bytes of WAL are kept`);
    },
  ],
  'sessions and their memory are bounded': [
    KEEPALIVE_S + WELL_S,
    async ({ sql, members }) => {
      const rows = await sql<{ name: string; n: number; kind: string; pids: number[] }[]>`
        select split_part(application_name, ' ', 3) as name, backend_type as kind, count(*)::int as n, json_agg(pid) as pids from pg_stat_activity
         where application_name like 'smslogd %' group by 1, 2`;
      const wrong = rows.filter(({ kind, n }) => n > (kind === 'walsender' ? 1 : SESSIONS - 1));
      const daemons = rows.filter(({ kind }) => kind !== 'walsender').length;
      const large = rows.flatMap(({ pids }) => pids.map(ownMemory)).filter((bytes) => bytes > SESSION_BYTES);
      return [
        ...wrong.map(({ kind, n }) => `${n} sessions of one daemon (${kind})`),
        ...large.map((bytes) => `a session has ${Math.round(bytes / 1024 / 1024)} MiB on the server`),
        ...(daemons > members.length ? [`sessions of ${daemons} daemons are there`] : []),
      ];
    },
  ],
};

/** Hold at once. */
export const NOW: Readonly<Record<string, Look>> = {
  'what was confirmed is in the source': async ({ sql }, { confirmed }) => {
    const rows = await sql<{ id: string }[]>`select id::text as id from verification.verifications`;
    const there = new Set(rows.map(({ id }) => id));
    return counted(
      'confirmed rows are not in the source: the harness is wrong',
      [...confirmed].filter((id) => !there.has(id)).length,
    );
  },
  'no row is in the log twice, or was never committed': async ({ sql }) => {
    const [row] = await sql.begin(async (tx) => {
      // not by the index, which may be what is broken
      await tx`set local enable_indexscan = off`;
      await tx`set local enable_indexonlyscan = off`;
      await tx`set local enable_bitmapscan = off`;
      return await tx`
        select count(*)::int - count(distinct l.id)::int as twice,
               (count(*) filter (where l.type = 'verification' and v.id is null))::int as surplus
          from verification.sms_log l left join verification.verifications v on v.id = l.id`;
    });
    return [
      ...counted('rows are there twice', row!['twice'] as number),
      ...counted('rows were never committed', row!['surplus'] as number),
    ];
  },
  'text, phone and microseconds are those of the source': async ({ sql }) => {
    const [row] = await sql`
      select count(*)::int as n from verification.verifications v join verification.sms_log l using (id)
       where l.type <> 'verification' or l.phone_number is distinct from v.phone_number or l.body is distinct from ${TEXT} || v.code
          or l.inserted_at is distinct from v.inserted_at at time zone 'UTC'`;
    return counted('rows differ from their source', row!['n'] as number);
  },
  'no row is refused': async ({ sql }) => {
    const rows = await sql<{ why: string }[]>`select concat_ws(' ', sqlstate, reason) as why from smslogd.sms_refused`;
    return rows.map(({ why }) => `a row is refused: ${why}`);
  },
  'rows of others are kept as they were written': async ({ sql }) => {
    const [row] = await sql`
      select count(*)::int as n from chaos.others o left join verification.sms_log l using (id)
       where (o.phone_number, o.type, o.body, o.gateway_id, o.inserted_at) is distinct from (l.phone_number, l.type, l.body, l.gateway_id, l.inserted_at)`;
    const [more] = await sql`
      select count(*)::int as n from verification.sms_log l where type <> 'verification' and not exists (select from chaos.others o where o.id = l.id)`;
    return [
      ...counted('rows of others are not as they were written', row!['n'] as number),
      ...counted('rows of others nobody wrote', more!['n'] as number),
    ];
  },
  'each status is what the gateway said, or a verdict by the rule': async (stage) => {
    const rows = await stage.sql<Logged[]>`
      select id::text as id, gateway_id as "gatewayId", gateway_status as status, (extract(epoch from status_changed_at) * 1000)::float8 as "changedAt",
             (extract(epoch from updated_at) * 1000)::float8 as "updatedAt", (extract(epoch from inserted_at) * 1000)::float8 as "insertedAt"
        from verification.sms_log`;
    const wrong = rows.flatMap((row) => untrue(row, stage) ?? []);
    return [...new Set(wrong)].map((what) => `${wrong.filter((each) => each === what).length} × ${what}`);
  },
  'no final status changed': async (stage) => {
    const wrong: string[] = [];
    await finalStays(stage, (what) => void wrong.push(what));
    return wrong;
  },
  'no SMS is open long after its life': async ({ sql }) => {
    const [row] = await sql`
      select count(*)::int as n from verification.sms_log l where (gateway_status is null or gateway_status not in ${sql.unsafe(FINAL)})
         and inserted_at < clock_timestamp() - make_interval(secs => ${LIFE_MINUTES * 60 + OVERDUE_S}::float8)`;
    return counted('SMS are open long after their life', row!['n'] as number);
  },
  'views say what a recount says': async ({ sql }) => {
    const day = sql.unsafe(`(l.inserted_at at time zone '${ZONE}')::date`);
    const [delivery, statuses] = await sql.begin('isolation level repeatable read read only', async (tx) => [
      await tx`
        with recount as (
          select ${day} as day, l.type, count(*) as total, count(*) filter (where gateway_status = 'Delivered') as delivered,
                 count(*) filter (where gateway_status not in ('Accepted', 'Enroute')) as processed,
                 count(*) filter (where gateway_status is null or gateway_status not in ${tx.unsafe(FINAL)}) as open,
                 count(*) filter (where gateway_status = 'Delivered' and status_changed_at - inserted_at <= interval '2 minutes') as le_2m
            from verification.sms_log l group by 1, 2)
        select coalesce(r.day, v.day)::text as day, coalesce(r.type, v.type) as type
          from recount r full join (select * from verification.sms_delivery_daily where total > 0) v using (day, type)
         where (r.total, r.delivered, r.processed, r.open, r.le_2m) is distinct from (v.total, v.delivered, v.processed, v.open, v.le_2m)`,
      await tx`
        with recount as (
          select ${day} as day, l.type, coalesce(gateway_status, 'Accepted') as status, count(*) as sms from verification.sms_log l group by 1, 2, 3)
        select from recount r full join (select * from verification.sms_status_daily where sms > 0) v using (day, type, status) where r.sms is distinct from v.sms`,
    ]);
    return [
      ...counted('lines of sms_delivery_daily differ from a recount', delivery.length),
      ...counted('lines of sms_status_daily differ from a recount', statuses.length),
    ];
  },
};

/** At the end: neither `migrate` nor `verify` has anything to say against all this. */
export const LAST: Readonly<Record<string, Look>> = {
  'four migrations at once end well': async (stage) =>
    (await migrateAtOnce(stage, 4)).flatMap(({ code, last }) =>
      code === 0 ? [] : [`migrate ended with ${code}: ${last}`],
    ),
  'verify finds nothing, and shows nobody': async (stage) => {
    const { exited, lines, stderr } = startProcess(['verify'], stage.db.env(), stage.program);
    const code = await exited;
    const said = [...lines, stderr()].join('\n');
    const shown = personalIn(said, stage);
    return [
      ...(code === 0 ? [] : [`it ended with ${code}: ${said.slice(-600)}`]),
      ...(shown === undefined ? [] : [`it shows ${shown}`]),
    ];
  },
};

/** Looks until nothing is wrong, or until the time is over: then what is still wrong. */
export async function within(seconds: number, look: () => Promise<string[]>): Promise<string[]> {
  const began = performance.now();
  for (;;) {
    const wrong = await look().catch((error: unknown) => [
      `the look failed: ${error instanceof Error ? error.message : String(error)}`,
    ]);
    if (wrong.length === 0 || (performance.now() - began) / 1000 > seconds) return wrong;
    await delay(500);
  }
}

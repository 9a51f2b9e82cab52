/**
 * The final comparison of the log with what was sent. The SQL joins both sides: missing rows, unexpected rows, and fields that differ; correctness.ts decides
 * whether the status is correct. It does not rely on the log's primary key: every row counts.
 */
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import type { Fate } from '../simulator/fate.ts';
import { STATUSES, type Status } from '../status.ts';
import { checkRow, trueStatus, type Flaw } from './correctness.ts';
import { DEMO_TYPES, type DemoType, type Sms } from './sms.ts';

/** Counts of one type and one status. */
export interface Tally {
  /** SMS of which this is the true status now */
  written: number;
  /** rows of the log with this status */
  logged: number;
  /** written, true status this one, and not in the log */
  missing: number;
  /** rows beyond the one of each SMS, whatever their id */
  doubled: number;
  /** rows with this status that do not tell the truth */
  differing: number;
}

/** A status, or `none yet` for a row that has no gateway id. */
export type StatusLine = Status | 'none yet';

export const STATUS_LINES: readonly StatusLine[] = [...STATUSES, 'none yet'];

export interface Audit {
  readonly tallies: Readonly<Record<DemoType, ReadonlyMap<StatusLine, Tally>>>;
  readonly totals: Readonly<Record<DemoType, Tally>>;
  readonly flaws: ReadonlyMap<Flaw, number>;
  /** true rows whose SMS has moved on since it was last asked for, and the longest time that one has */
  readonly behind: { readonly rows: number; readonly longestMs: number };
}

export interface AuditInput {
  readonly sql: Sql;
  readonly sent: readonly Sms[];
  readonly fate: (gatewayId: string) => Fate | undefined;
  readonly lifeMs: number;
}

interface Pair {
  readonly id: string;
  readonly sms: number | null;
  readonly type: DemoType;
  readonly copy: number;
  readonly status: Status | null;
  readonly changed: number | null;
  readonly updated: number | null;
  readonly phone: boolean;
  readonly text: boolean;
  readonly gateway: boolean;
  readonly time: boolean;
  readonly kind: boolean;
}

const CHUNK = 10_000;

/** Compares every SMS sent with every row logged. The daemon must have stopped: the log may not change meanwhile. */
export async function auditLog({ sql, sent, fate, lifeMs }: AuditInput): Promise<Audit> {
  const tallies = {
    verification: emptyTallies(),
    medication_request: emptyTallies(),
  } satisfies Record<DemoType, Map<StatusLine, Tally>>;
  const flaws = new Map<Flaw, number>();
  const behind = { rows: 0, longestMs: 0 };
  const courses = sent.map(({ insertedAt, gatewayId }) => ({
    insertedAt: Date.parse(`${insertedAt.slice(0, 23)}Z`),
    fate: gatewayId === null ? undefined : fate(gatewayId),
  }));

  await sql.begin(async (tx) => {
    await tx`create temporary table sent (n int, id uuid, type text, phone_number text, body text, gateway_id text, inserted_at timestamptz) on commit drop`;
    for (let start = 0; start < sent.length; start += CHUNK) {
      const rows = sent.slice(start, start + CHUNK);
      await tx`
        insert into sent select ${start} + r.n - 1, r.id, r.type, r.phone, r.body, r.gateway_id, r.at
          from unnest(${arrayLiteral(rows.map(({ id }) => id))}::text::uuid[], ${arrayLiteral(rows.map(({ type }) => type))}::text::text[],
                      ${arrayLiteral(rows.map(({ phone }) => phone))}::text::text[], ${arrayLiteral(rows.map(({ body }) => body))}::text::text[],
                      ${arrayLiteral(rows.map(({ gatewayId }) => gatewayId))}::text::text[],
                      ${arrayLiteral(rows.map(({ insertedAt }) => `${insertedAt}Z`))}::text::timestamptz[])
               with ordinality as r (id, type, phone, body, gateway_id, at, n)`;
    }
    const [moment] = await tx<{ now: number }[]>`select (extract(epoch from clock_timestamp()) * 1000)::float8 as now`;
    const clock = { now: moment?.now ?? Date.now(), lifeMs };
    for (const [n, course] of courses.entries()) {
      tallyOf(tallies, sent[n]!.type, trueStatus(course, clock)).written += 1;
    }

    const missing = await tx<{ n: number }[]>`
      select s.n from sent s where not exists (select from verification.sms_log l where l.id = s.id)`;
    for (const { n } of missing) tallyOf(tallies, sent[n]!.type, trueStatus(courses[n]!, clock)).missing += 1;

    // ctid: copies are told apart without any key
    const pairs = tx<Pair[]>`
      select l.id::text as id, s.n as sms, l.type, row_number() over (partition by l.id order by l.ctid)::int as copy, l.gateway_status as status,
             (extract(epoch from l.status_changed_at) * 1000)::float8 as changed, (extract(epoch from l.updated_at) * 1000)::float8 as updated,
             l.phone_number is distinct from s.phone_number as phone, l.body is distinct from s.body as text,
             l.gateway_id is distinct from s.gateway_id as gateway, l.inserted_at is distinct from s.inserted_at as time,
             l.type is distinct from s.type as kind
        from verification.sms_log l left join sent s on s.id = l.id`.cursor(CHUNK);
    for await (const rows of pairs) {
      for (const row of rows) {
        const tally = tallyOf(tallies, row.type, row.status);
        tally.logged += 1;
        if (row.sms === null || row.copy > 1) {
          tally.doubled += 1;
          continue;
        }
        const logged = { status: row.status, changedAt: row.changed, updatedAt: row.updated ?? 0 };
        const { flaw, behindMs } = checkRow(logged, courses[row.sms]!, clock);
        const found = fieldFlaw(row) ?? flaw;
        if (found !== undefined) {
          tally.differing += 1;
          flaws.set(found, (flaws.get(found) ?? 0) + 1);
        } else if (behindMs > 0) {
          behind.rows += 1;
          behind.longestMs = Math.max(behind.longestMs, behindMs);
        }
      }
    }
  });
  return {
    tallies,
    totals: { verification: sum(tallies.verification), medication_request: sum(tallies.medication_request) },
    flaws,
    behind,
  };
}

/** True if each SMS is in the log once and each row is correct, and there is at least one. */
export function isRight({ totals }: Pick<Audit, 'totals'>): boolean {
  return DEMO_TYPES.every((type) => {
    const { written, logged, missing, doubled, differing } = totals[type];
    return written > 0 && logged === written && missing + doubled + differing === 0;
  });
}

function fieldFlaw(row: Pair): Flaw | undefined {
  if (row.phone) return 'phone';
  if (row.text) return 'text';
  if (row.gateway) return 'gateway id';
  if (row.time) return 'inserted_at';
  return row.kind ? 'type' : undefined;
}

function emptyTallies(): Map<StatusLine, Tally> {
  return new Map(STATUS_LINES.map((status) => [status, emptyTally()]));
}

function emptyTally(): Tally {
  return { written: 0, logged: 0, missing: 0, doubled: 0, differing: 0 };
}

/** A type that the demo does not send stands with the verifications: it can only be a row too many. */
function tallyOf(tallies: Record<DemoType, Map<StatusLine, Tally>>, type: DemoType, status: Status | null): Tally {
  const ofType = tallies[type] ?? tallies.verification;
  return ofType.get(status ?? 'none yet')!;
}

function sum(tallies: ReadonlyMap<StatusLine, Tally>): Tally {
  const total = emptyTally();
  for (const tally of tallies.values()) {
    for (const key of Object.keys(total) as (keyof Tally)[]) total[key] += tally[key];
  }
  return total;
}

/**
 * The contents of the database before smslogd is installed: two days of SMS with their final delivery status, known to the gateway and not yet to the log.
 * Verifications are only in the source table; reimbursement SMS are in the log, as Accepted, as their service wrote them. A few verifications turn 30 days old
 * while the demo runs: the owner's job deletes them.
 */
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { drawFate, makeGatewayId, type Fate } from '../simulator/fate.ts';
import { OPEN_STATUSES, STATUSES, type Status } from '../status.ts';
import { drawMoments, hourIn } from './daily-load.ts';
import { DEMO_TYPES, drawCode, makeSms, reimbursementText, testPhone, type DemoType, type Sms } from './sms.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const DAYS = 2;
const VERIFICATION_SHARE = 0.72;
/** The gateway gave no id: the row is there, the SMS is not. */
const REFUSED_SHARE = 0.004;
const OLD_VERIFICATIONS = 60;
const PEOPLE = 9_000;
const CODE_LIFE_MS = 15 * MINUTE;
const CHUNK = 4_000;

/** The last status of an SMS at the gateway. Terminated is ours, for SMS that never become final. */
const FATES: readonly (Status | 'no id')[] = [...STATUSES.filter((status) => status !== 'Terminated'), 'no id'];

export interface PastSms extends Sms {
  /** epoch ms */
  readonly sentAt: number;
  /** absent where there is no gateway id */
  readonly fate: Fate | undefined;
  readonly code: number;
}

export interface HistoryOptions {
  readonly count: number;
  /** epoch ms, the end of the history */
  readonly now: number;
  readonly random: () => number;
  readonly timezone: string;
  readonly codeText: string;
}

/** Generates the history, oldest first. It contains each status of the gateway for both types, and each open status also before the deadline. */
export function planHistory({ count, now, random, timezone, codeText }: HistoryOptions): PastSms[] {
  const known = new Set<string>();
  const one = (type: DemoType, sentAt: number, wanted?: Status | 'no id'): PastSms => {
    const phone = testPhone(Math.floor(random() * PEOPLE));
    const refused = wanted === undefined ? random() < REFUSED_SHARE : wanted === 'no id';
    const code = drawCode(random);
    const body = type === 'verification' ? `${codeText}${code}` : reimbursementText(random);
    const gatewayId = refused ? null : freshId(phone, sentAt, random, known);
    const fate = refused ? undefined : fateThatEnds(wanted, sentAt, random);
    return {
      ...makeSms(type, phone, body, gatewayId, sentAt + 40 + Math.floor(random() * 200), random),
      sentAt,
      fate,
      code,
    };
  };
  const moments = drawMoments(count, { from: now - DAYS * DAY, to: now - 1_000 }, hourIn(timezone), random);
  const past = moments.map((at, i) => {
    // the first SMS show each fate once for each type
    const type =
      i < 2 * FATES.length ? DEMO_TYPES[i % 2]! : random() < VERIFICATION_SHARE ? 'verification' : 'medication_request';
    return one(type, at, FATES[i >> 1]);
  });
  // the newest SMS are replaced by open ones, so that there are some at night, too
  const living = DEMO_TYPES.flatMap((type) =>
    OPEN_STATUSES.map((status) => one(type, Math.floor(now - (1 + random() * 20) * MINUTE), status)),
  );
  const old = Array.from({ length: Math.min(OLD_VERIFICATIONS, Math.ceil(count / 100)) }, () =>
    one('verification', Math.floor(now - 30 * DAY + random() * 20_000)),
  );
  return [...old, ...past.slice(0, Math.max(0, past.length - living.length)), ...living];
}

function fateThatEnds(wanted: string | undefined, sentAt: number, random: () => number): Fate {
  for (;;) {
    const fate = drawFate(sentAt, random);
    if (wanted === undefined || fate.at(-1)?.status === wanted) return fate;
  }
}

function freshId(phone: string, sentAt: number, random: () => number, known: Set<string>): string {
  for (;;) {
    const id = makeGatewayId(phone, sentAt, random);
    if (known.has(id)) continue;
    known.add(id);
    return id;
  }
}

export interface HistoryStores {
  /** as the owner of the source */
  readonly sql: Sql;
  /** sets the fate of an SMS at the gateway */
  readonly load: (gatewayId: string, fate: Fate) => void;
  readonly onProgress: (written: number) => void;
}

/** Writes the plan: verifications into the source, the others into the log. */
export async function writeHistory(
  plan: readonly PastSms[],
  { sql, load, onProgress }: HistoryStores,
  random: () => number,
): Promise<void> {
  for (const { gatewayId, fate } of plan) if (gatewayId !== null && fate !== undefined) load(gatewayId, fate);
  const now = plan.reduce((latest, { sentAt }) => Math.max(latest, sentAt), 0);
  const remains = leftovers(plan, now, random);
  let written = 0;
  for (let start = 0; start < plan.length; start += CHUNK) {
    const chunk = plan.slice(start, start + CHUNK);
    await writeVerifications(
      sql,
      chunk.filter(({ type }) => type === 'verification'),
      remains,
    );
    await writeReimbursements(
      sql,
      chunk.filter(({ type }) => type === 'medication_request'),
    );
    written += chunk.length;
    onProgress(written);
  }
}

/** How the OTP service left a verification. */
interface Leftover {
  readonly status: string;
  readonly active: boolean;
  readonly attempts: number;
}

function leftovers(plan: readonly PastSms[], now: number, random: () => number): Map<string, Leftover> {
  const activePhones = new Set<string>();
  const result = new Map<string, Leftover>();
  // newest first: only a phone's newest verification can still be active
  for (const { id, type, phone, sentAt } of plan.toReversed()) {
    if (type !== 'verification') continue;
    const point = random();
    if (point < 0.62) result.set(id, { status: 'completed', active: false, attempts: 1 });
    else if (point < 0.76)
      result.set(id, { status: 'verified', active: false, attempts: 1 + Math.floor(random() * 3) });
    else if (point < 0.79) result.set(id, { status: 'unverified', active: false, attempts: 3 });
    else if (sentAt + CODE_LIFE_MS > now && !activePhones.has(phone)) {
      activePhones.add(phone);
      result.set(id, { status: 'new', active: true, attempts: 0 });
    } else if (point < 0.9) result.set(id, { status: 'expired', active: false, attempts: Math.floor(random() * 3) });
    else result.set(id, { status: 'canceled', active: false, attempts: 0 });
  }
  return result;
}

async function writeVerifications(sql: Sql, rows: readonly PastSms[], remains: Map<string, Leftover>): Promise<void> {
  const left = rows.map(({ id }) => remains.get(id)!);
  await sql`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status,
                                            attempts_count, inserted_at)
    select r.id, r.phone, r.code % 10, r.status, r.code, r.at + ${CODE_LIFE_MS} * interval '1 ms', r.active, r.gateway_id,
           case when r.gateway_id is not null then 'Accepted' end, r.attempts, r.at
      from unnest(${arrayLiteral(rows.map(({ id }) => id))}::text::uuid[], ${arrayLiteral(rows.map(({ phone }) => phone))}::text::text[],
                  ${arrayLiteral(rows.map(({ code }) => code))}::text::int[], ${arrayLiteral(left.map(({ status }) => status))}::text::text[],
                  ${arrayLiteral(left.map(({ active }) => String(active)))}::text::bool[],
                  ${arrayLiteral(rows.map(({ gatewayId }) => gatewayId))}::text::text[],
                  ${arrayLiteral(left.map(({ attempts }) => attempts))}::text::int[],
                  ${arrayLiteral(rows.map(({ insertedAt }) => insertedAt))}::text::timestamp[])
           as r (id, phone, code, status, active, gateway_id, attempts, at)`;
}

async function writeReimbursements(sql: Sql, rows: readonly PastSms[]): Promise<void> {
  await sql`
    insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
    select r.id, r.phone, 'medication_request', r.body, r.gateway_id, case when r.gateway_id is not null then 'Accepted' end, r.at
      from unnest(${arrayLiteral(rows.map(({ id }) => id))}::text::uuid[], ${arrayLiteral(rows.map(({ phone }) => phone))}::text::text[],
                  ${arrayLiteral(rows.map(({ body }) => body))}::text::text[],
                  ${arrayLiteral(rows.map(({ gatewayId }) => gatewayId))}::text::text[],
                  ${arrayLiteral(rows.map(({ insertedAt }) => `${insertedAt}Z`))}::text::timestamptz[])
           as r (id, phone, body, gateway_id, at)`;
}

/**
 * A simulated OTP service, the owner of verification.verifications. For each verification it sends the SMS, deactivates the phone's older verifications and
 * inserts the row with the gateway's id; some rows are inserted first and get the id by an UPDATE. Then come wrong and right attempts. Two jobs run beside it:
 * one marks expired verifications with an UPDATE over many rows, the other deletes those older than 30 days.
 */
import type { Sql } from '../postgres/pools.ts';
import { pause } from '../supervise.ts';
import { every, pace } from './pace.ts';
import { drawCode, makeSms, testPhone, type Sms } from './sms.ts';

/** Seconds that a code is valid; 300 or 900 in production, here short, so that the expiry job finds many. */
const CODE_LIFE_SECONDS = 20;
/** In production it runs each minute. */
const EXPIRY_JOB_SECONDS = 5;
const DELETE_JOB_SECONDS = 7;
/** A few phones request often, so that there are older rows to deactivate. */
const PEOPLE = 2_500;
const LATE_ID_SHARE = 0.03;
const REFUSED_SHARE = 0.005;

export interface OtpService {
  readonly sql: Sql;
  /** sends an SMS and returns its gateway id */
  readonly send: (phone: string) => string;
  /** called for each SMS once its row is committed */
  readonly written: (sms: Sms) => void;
  readonly random: () => number;
  readonly codeText: string;
  readonly perSecond: number;
}

/** Runs until `signal` aborts, then finishes the rows that wait for their gateway id. Throws the first failure. */
export async function runOtpService(service: OtpService, signal: AbortSignal): Promise<void> {
  const { sql, perSecond } = service;
  const busyPhones = new Set<string>();
  await Promise.all([
    pace({ perSecond, limit: perSecond * 30 }, () => oneVerification(service, busyPhones, signal), signal),
    every(EXPIRY_JOB_SECONDS, () => expire(sql), signal),
    every(DELETE_JOB_SECONDS, () => deleteOld(sql), signal),
  ]);
}

async function oneVerification(service: OtpService, busyPhones: Set<string>, signal: AbortSignal): Promise<void> {
  const { sql, send, written, random, codeText } = service;
  const phone = takePhone(busyPhones, random);
  const manner = random();
  const refused = manner < REFUSED_SHARE;
  const late = !refused && manner < REFUSED_SHARE + LATE_ID_SHARE;
  const code = drawCode(random);
  const gatewayId = refused || late ? null : send(phone);
  const sms = makeSms('verification', phone, `${codeText}${code}`, gatewayId, Date.now(), random);
  try {
    await insert(sql, sms, code);
  } finally {
    busyPhones.delete(phone);
  }
  written(sms);
  if (late) {
    await pause(50 + random() * 600, signal);
    sms.gatewayId = send(phone);
    await sql`update verification.verifications set gateway_id = ${sms.gatewayId}, gateway_status = 'Accepted' where id = ${sms.id}`;
  }
  await useCode(sql, sms.id, random, signal);
}

/** A phone without a concurrent verification: two inserts for one phone would violate its unique index, as in production. */
function takePhone(busy: Set<string>, random: () => number): string {
  for (;;) {
    const phone = testPhone(9_000_000 + Math.floor(random() * PEOPLE));
    if (busy.has(phone)) continue;
    busy.add(phone);
    return phone;
  }
}

async function insert(sql: Sql, sms: Sms, code: number): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`update verification.verifications set active = false, status = 'canceled' where phone_number = ${sms.phone} and active`;
    await tx`
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status,
                                              attempts_count, inserted_at)
      values (${sms.id}, ${sms.phone}, ${code % 10}, 'new', ${code}, ${sms.insertedAt}::text::timestamp + ${CODE_LIFE_SECONDS} * interval '1 s', true,
              ${sms.gatewayId}, ${sms.gatewayId === null ? null : 'Accepted'}, 0, ${sms.insertedAt}::text::timestamp)`;
  });
}

/** The patient enters the code: often right at once, sometimes wrong, sometimes never. */
async function useCode(sql: Sql, id: string, random: () => number, signal: AbortSignal): Promise<void> {
  const wrong = random() < 0.8 ? 0 : 1 + Math.floor(random() * 3);
  for (let attempt = 1; attempt <= wrong; attempt += 1) {
    await pause(1_500 + random() * 2_500, signal);
    if (signal.aborted) return;
    if (attempt === 3)
      await sql`update verification.verifications set attempts_count = 3, status = 'unverified', active = false where id = ${id} and active`;
    else
      await sql`update verification.verifications set attempts_count = attempts_count + 1 where id = ${id} and active`;
  }
  if (wrong === 3 || random() < 0.3) return;
  await pause(2_000 + random() * 5_000, signal);
  if (signal.aborted) return;
  await sql`update verification.verifications set attempts_count = attempts_count + 1, status = 'verified', active = false where id = ${id} and active`;
  if (random() < 0.4) return;
  await pause(500 + random() * 1_500, signal);
  if (!signal.aborted)
    await sql`update verification.verifications set status = 'completed' where id = ${id} and status = 'verified'`;
}

async function expire(sql: Sql): Promise<void> {
  await sql`update verification.verifications set status = 'expired', active = false
             where active and code_expired_at < now() at time zone 'utc'`;
}

async function deleteOld(sql: Sql): Promise<void> {
  await sql`delete from verification.verifications where inserted_at < now() at time zone 'utc' - interval '30 days'`;
}

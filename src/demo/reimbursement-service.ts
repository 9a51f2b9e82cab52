/** Another service: it sends its own SMS (`medication_request`) and writes them directly to the log, as the role sms_writer. */
import type { Sql } from '../postgres/pools.ts';
import { pace } from './pace.ts';
import { makeSms, reimbursementText, testPhone, type Sms } from './sms.ts';

const PEOPLE = 100_000;

export interface ReimbursementService {
  readonly sql: Sql;
  /** sends an SMS and returns its gateway id */
  readonly send: (phone: string) => string;
  /** called for each SMS once its row is committed */
  readonly written: (sms: Sms) => void;
  readonly random: () => number;
  readonly perSecond: number;
}

/** Runs until `signal` aborts. Throws the first failure. */
export async function runReimbursementService(service: ReimbursementService, signal: AbortSignal): Promise<void> {
  const { sql, send, written, random, perSecond } = service;
  const one = async () => {
    const phone = testPhone(Math.floor(random() * PEOPLE));
    const sms = makeSms('medication_request', phone, reimbursementText(random), send(phone), Date.now(), random);
    await sql`
      insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
      values (${sms.id}, ${phone}, ${sms.type}, ${sms.body}, ${sms.gatewayId}, 'Accepted', ${`${sms.insertedAt}Z`}::text::timestamptz)`;
    written(sms);
  };
  await pace({ perSecond, limit: perSecond * 10 }, one, signal);
}

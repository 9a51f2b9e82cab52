import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { auditLog, isRight, type Audit } from '../../src/demo/audit.ts';
import { planHistory, writeHistory } from '../../src/demo/history.ts';
import { runOtpService } from '../../src/demo/otp-service.ts';
import { waitFor } from '../../src/demo/pace.ts';
import { runReimbursementService } from '../../src/demo/reimbursement-service.ts';
import { countAbsent, readScore, waitingVerifications } from '../../src/demo/scoreboard.ts';
import { makeSms, microsecondText, testPhone, type Sms } from '../../src/demo/sms.ts';
import type { Fate } from '../../src/simulator/fate.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

const LIFE_MS = 35 * 60_000;
const CODE_TEXT = 'Код авторизації дій в системі eHealth: ';

describe('the audit', () => {
  let database: TestDatabase;
  const fates = new Map<string, Fate>();
  const sent: Sms[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    const random = seededRandom(3);
    for (let n = 0; n < 40; n += 1) {
      const at = Date.now() - 120_000 - n * 1_000;
      const type = n % 2 === 0 ? 'verification' : 'medication_request';
      const sms = makeSms(type, testPhone(n), `text ${n}`, n < 38 ? `10000${n}0000000` : null, at, random);
      sent.push(sms);
      if (sms.gatewayId !== null)
        fates.set(sms.gatewayId, [
          { status: 'Accepted', at },
          { status: 'Delivered', at: at + 3_210 },
        ]);
    }
  });
  afterAll(() => database.drop());

  /** A log that is right, then what the case does to it. */
  async function auditAfter(...changes: string[]): Promise<Audit> {
    const { sql } = database;
    await sql`truncate verification.sms_log`;
    for (const sms of sent) {
      const delivered = sms.gatewayId === null ? undefined : fates.get(sms.gatewayId)!.at(-1)!;
      await sql`
        insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, status_changed_at, inserted_at)
        values (${sms.id}, ${sms.phone}, ${sms.type}, ${sms.body}, ${sms.gatewayId}, ${delivered === undefined ? null : 'Delivered'},
                date_trunc('second', to_timestamp(${delivered === undefined ? null : delivered.at / 1000}::float8)), ${`${sms.insertedAt}Z`}::text::timestamptz)`;
    }
    for (const change of changes) await sql.unsafe(change);
    return auditLog({ sql, sent, fate: (id) => fates.get(id), lifeMs: LIFE_MS });
  }
  const first = () => `id = '${sent[0]!.id}'`;

  test('finds nothing wrong in a log that is right', async () => {
    const audit = await auditAfter();
    expect(audit.totals.verification).toEqual({ written: 20, logged: 20, missing: 0, doubled: 0, differing: 0 });
    expect(audit.totals.medication_request).toEqual({ written: 20, logged: 20, missing: 0, doubled: 0, differing: 0 });
    expect(audit.tallies.verification.get('Delivered')).toMatchObject({ written: 19, logged: 19 });
    expect(audit.tallies.verification.get('none yet')).toMatchObject({ written: 1, logged: 1 });
    expect(isRight(audit)).toBe(true);
  });

  test('finds a row that is missing, under its true status', async () => {
    const audit = await auditAfter(`delete from verification.sms_log where ${first()}`);
    expect(audit.tallies.verification.get('Delivered')).toMatchObject({ written: 19, logged: 18, missing: 1 });
    expect(isRight(audit)).toBe(false);
  });

  test('finds a row that is there twice under another id', async () => {
    const audit = await auditAfter(
      `insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, status_changed_at, inserted_at)
       select '${randomUUID()}', phone_number, type, body, gateway_id, gateway_status, status_changed_at, inserted_at from verification.sms_log where ${first()}`,
    );
    expect(audit.totals.verification).toMatchObject({ written: 20, logged: 21, doubled: 1 });
    expect(isRight(audit)).toBe(false);
  });

  test('finds a row that is there twice under one id, and does not need the key for it', async () => {
    const audit = await auditAfter(
      'alter table verification.sms_log drop constraint sms_log_pkey',
      `insert into verification.sms_log select * from verification.sms_log where ${first()}`,
    );
    await database.sql
      .unsafe(`truncate verification.sms_log; alter table verification.sms_log add primary key (id)`)
      .simple();
    expect(audit.totals.verification).toMatchObject({ written: 20, logged: 21, doubled: 1, missing: 0 });
    expect(isRight(audit)).toBe(false);
  });

  test('finds one row missing and another doubled, though the sums agree', async () => {
    const audit = await auditAfter(
      `delete from verification.sms_log where ${first()}`,
      `insert into verification.sms_log (phone_number, type, body) values ('${testPhone(99)}', 'verification', 'stranger')`,
    );
    expect(audit.totals.verification).toMatchObject({ written: 20, logged: 20, missing: 1, doubled: 1 });
    expect(isRight(audit)).toBe(false);
  });

  test('counts a row of a type that nobody sent as one too many', async () => {
    const audit = await auditAfter(
      `insert into verification.sms_log (phone_number, type) values ('${testPhone(99)}', '2FA')`,
    );
    expect(audit.totals.verification).toMatchObject({ logged: 21, doubled: 1 });
    expect(isRight(audit)).toBe(false);
  });

  test.each([
    ['phone', `phone_number = '${testPhone(98)}'`],
    ['text', `body = '****'`],
    ['text', 'body = null'],
    ['gateway id', `gateway_id = '1234567'`],
    ['inserted_at', `inserted_at = inserted_at + interval '1 microsecond'`],
    ['type', `type = 'text'`],
    ['status', `gateway_status = 'Expired'`],
    ['status', `gateway_status = 'Terminated', status_changed_at = inserted_at + interval '36 minutes'`],
    ['date', `status_changed_at = status_changed_at + interval '1 second'`],
    ['date', 'status_changed_at = null'],
    ['status', `updated_at = inserted_at`],
  ])('finds a wrong %s (%s)', async (flaw, change) => {
    const audit = await auditAfter(`update verification.sms_log set ${change} where ${first()}`);
    expect([...audit.flaws]).toEqual([[flaw, 1]]);
    expect(audit.totals.verification.differing).toBe(1);
    expect(isRight(audit)).toBe(false);
  });

  test('takes an open row with an earlier status for true while the SMS lives, and says that it is behind', async () => {
    const audit = await auditAfter(
      `update verification.sms_log set gateway_status = 'Accepted', status_changed_at = null where ${first()}`,
    );
    expect(isRight(audit)).toBe(true);
    expect(audit.behind.rows).toBe(1);
    expect(audit.behind.longestMs).toBeGreaterThan(100_000);
    expect(audit.tallies.verification.get('Accepted')).toMatchObject({ written: 0, logged: 1 });
  });
});

describe('the owner and the others', () => {
  let database: TestDatabase;
  const sent: Sms[] = [];
  beforeAll(async () => {
    database = await createDatabase();
  });
  afterAll(() => database.drop());

  test('the history lies in the source and in the log as it was planned', async () => {
    const { sql } = database;
    const random = seededRandom(11);
    const loaded = new Map<string, Fate>();
    const plan = planHistory({ count: 3_000, now: Date.now(), random, timezone: 'Europe/Kyiv', codeText: CODE_TEXT });
    const progress: number[] = [];
    await writeHistory(
      plan,
      { sql, load: (id, fate) => loaded.set(id, fate), onProgress: (n) => progress.push(n) },
      random,
    );
    expect(progress.at(-1)).toBe(plan.length);
    const verifications = plan.filter(({ type }) => type === 'verification');
    const source = await sql<
      { id: string; at: string; code: number; phone: string; gateway: string | null; word: string | null }[]
    >`
      select id::text, to_char(inserted_at, 'YYYY-MM-DD"T"HH24:MI:SS.US') as at, code, phone_number as phone, gateway_id as gateway, gateway_status as word
        from verification.verifications`;
    const written = new Map(source.map((row) => [row.id, row]));
    expect(source).toHaveLength(verifications.length);
    for (const { id, insertedAt, code, phone, gatewayId } of verifications) {
      const word = gatewayId === null ? null : 'Accepted';
      expect(written.get(id)).toEqual({ id, at: insertedAt, code, phone, gateway: gatewayId, word });
    }
    expect(loaded.size).toBe(plan.filter(({ gatewayId }) => gatewayId !== null).length);
    const [log] = await sql`select count(*)::int as rows from verification.sms_log where type = 'medication_request'`;
    expect(log?.['rows']).toBe(plan.length - verifications.length);

    const score = await readScore(
      sql,
      microsecondText(Date.now() + 1_000, () => 0),
      35,
    );
    expect(score).toMatchObject({ copied: 0, live: 0, rows: plan.length - verifications.length, open: score.rows });
    expect(score.overdue).toBeGreaterThan(score.open * 0.8);
    const waiting = await waitingVerifications(sql);
    expect(waiting).toHaveLength(verifications.length);
    expect(await countAbsent(sql, waiting)).toBe(verifications.length);
  });

  test('the OTP service does all that the owner of the source does, and leaves no gateway id on its way', async () => {
    const { sql } = database;
    let sequence = 0;
    const stop = new AbortController();
    const service = runOtpService(
      {
        sql,
        send: () => String(9_000_000_000_000 + sequence++),
        written: (sms) => sent.push(sms),
        random: seededRandom(5),
        codeText: CODE_TEXT,
        perSecond: 50,
      },
      stop.signal,
    );
    const counts = async () =>
      (
        await sql<[Record<string, number>]>`
          select count(*) filter (where status = 'canceled')::int as canceled, count(*) filter (where status = 'verified')::int as verified,
                 count(*) filter (where attempts_count > 0)::int as attempts, count(*) filter (where active)::int as active
            from verification.verifications where phone_number like '+380009%'`
      )[0];
    await until('deactivated, wrong and right attempts', async () => {
      const { canceled, verified, attempts } = await counts();
      return canceled! > 5 && verified! > 5 && attempts! > 5;
    });
    const expired = async () =>
      await sql`select from verification.verifications where active and inserted_at < now() at time zone 'utc' - interval '15 minutes'`;
    await until('the jobs for expired and old rows', async () => {
      const old =
        await sql`select from verification.verifications where inserted_at < now() at time zone 'utc' - interval '30 days'`;
      return old.length === 0 && (await expired()).length === 0;
    });
    stop.abort();
    await service;
    const rows = await sql<{ id: string; gateway: string | null; word: string | null; body: string; at: string }[]>`
      select id::text, gateway_id as gateway, gateway_status as word, ${CODE_TEXT}::text || code as body, to_char(inserted_at, 'YYYY-MM-DD"T"HH24:MI:SS.US') as at
        from verification.verifications where phone_number like '+380009%'`;
    const written = new Map(rows.map((row) => [row.id, row]));
    expect(rows).toHaveLength(sent.length);
    for (const { id, gatewayId, body, insertedAt } of sent)
      expect(written.get(id)).toEqual({
        id,
        gateway: gatewayId,
        word: gatewayId === null ? null : 'Accepted',
        body,
        at: insertedAt,
      });
    expect(sent.filter(({ gatewayId }) => gatewayId === null).length).toBeLessThan(sent.length * 0.05);
  });

  test('the reimbursement service writes its SMS into the log', async () => {
    const { sql } = database;
    const stop = new AbortController();
    const mine: Sms[] = [];
    await runReimbursementService(
      {
        sql,
        send: (phone) => phone.slice(1),
        written: (sms) => {
          if (mine.push(sms) === 20) stop.abort();
        },
        random: seededRandom(6),
        perSecond: 100,
      },
      stop.signal,
    );
    const rows =
      await sql`select from verification.sms_log where id in ${sql(mine.map(({ id }) => id))} and gateway_status = 'Accepted'`;
    expect(rows).toHaveLength(mine.length);
  });
});

test('a wait ends when its condition holds, when its time is over or when it is called off', async () => {
  let asked = 0;
  expect(await waitFor(async () => (asked += 1) === 3, { seconds: 5 })).toBe(true);
  expect(asked).toBe(3);
  expect(await waitFor(async () => false, { seconds: 0 })).toBe(false);
  expect(await waitFor(async () => false, { seconds: 60, signal: AbortSignal.abort() })).toBe(false);
});

/** The stream's values as text and in binary form, and a copy of the source: the log gets the same rows of all. */
import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { ZERO_LSN } from '../../src/postgres/lsn.ts';
import { AS_TEXT, formOf, type Form } from '../../src/mirror/apply.ts';
import { gather } from '../../src/mirror/batch.ts';
import { createStore } from '../../src/mirror/store.ts';
import { openStream } from '../../src/replication/connection.ts';
import { describeServer } from '../../src/replication/server.ts';
import { createDecoder } from '../../src/replication/pgoutput.ts';
import { audit } from '../../src/reconcile/audit.ts';
import { describeSource, MIRRORED_COLUMNS } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { nextTerm, startMirror } from '../support/mirror.ts';
import { insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let sql: Sql;

beforeEach(async () => {
  db = await createDatabase();
  sql = openDatabase(db.config(), { max: 1, name: 'test' });
});
afterEach(async () => {
  await sql.end({ timeout: 1 });
  await db.drop();
});

/** What the log has of `count` rows that the slot brings in this form. */
async function logged(form: Form, count: number, timezone: string): Promise<object[]> {
  const config = db.config({ SOURCE_TIMEZONE: timezone });
  const source = await describeSource(sql, config);
  const gathering = gather(ZERO_LSN, form);
  const needed = MIRRORED_COLUMNS.filter((column) => source.columns.has(column));
  const message = createDecoder({ ...source, needed, binary: form.binary ? source.types : undefined }, gathering);
  const handlers = { message, keepalive() {} };
  const stream = await openStream(
    config,
    { name: 'mirror' },
    { server: await describeServer(sql), durable: ZERO_LSN, senderTimeoutMs: 0, binary: form.binary, handlers },
  );
  await Promise.race([until('every row to be sent', () => gathering.size === count), stream.ended]);
  await stream.close();
  await db.sql`truncate verification.sms_log`;
  const store = createStore(sql, config);
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  store.takes(form);
  expect(await store.write(gathering.take(), term)).toMatchObject({ inserted: count, refused: [] });
  return inLog();
}

/** What the log has of a copy. */
async function copied(timezone: string): Promise<object[]> {
  const config = db.config({ SOURCE_TIMEZONE: timezone });
  await db.sql`truncate verification.sms_log`;
  const copy = await createStore(sql, config).reconcileChunk(await describeSource(sql, config), undefined, 100);
  expect(copy).toMatchObject({ refused: [] });
  return inLog();
}

const inLog = async () => [
  ...(await db.sql`
    select id, phone_number, body, gateway_id, gateway_status, inserted_at::text from verification.sms_log order by id`),
];

const TYPES = {
  phone_number: ['varchar(255)', 'text', 'char(20)', 'bigint'],
  code: ['integer', 'smallint', 'bigint', 'text', 'varchar(9)', 'char(9)'],
  gateway_id: ['varchar(255)', 'text', 'char(25)', 'bigint', 'integer'],
  gateway_status: ['varchar(255)', 'text', 'char(20)', 'text collate verification.any_case'],
  inserted_at: ['timestamp', 'timestamptz'],
} as const;

const digits = fc.integer({ min: 0, max: 32_767 }).map(String);
const odd = fc.string({ unit: 'grapheme', maxLength: 9 }).filter((value) => !value.includes('\0'));
const WORDS = [
  'Accepted',
  'accepted ',
  'sent',
  '',
  ' ',
  'Nobody knows',
  'Delivered',
  'delivered',
  'DELIVERED\n',
  '\t',
  `O'К"\\{}`,
];
const TIMES = [
  'infinity',
  '-infinity',
  '2026-03-29 01:30:00.000001',
  '2026-10-25 03:30:00.999999',
  '0044-03-15 00:00:00 BC',
  '1999-12-31 23:59:59.5',
  '12026-01-02 03:04:05.678901',
  // in another zone there are none
  '4714-11-24 00:00:00 BC',
  '294276-12-31 23:59:59.999999',
];
/** A table's columns with their types, and rows of it. */
const table = fc.record({
  types: fc.record({
    phone_number: fc.constantFrom(...TYPES.phone_number),
    code: fc.constantFrom(...TYPES.code),
    gateway_id: fc.constantFrom(...TYPES.gateway_id),
    gateway_status: fc.constantFrom(...TYPES.gateway_status),
    inserted_at: fc.constantFrom(...TYPES.inserted_at),
  }),
  timezone: fc.constantFrom('UTC', 'Europe/Kyiv', 'America/New_York'),
  rows: fc.array(
    fc.record({
      phone_number: digits,
      code: fc.option(fc.oneof(digits, fc.constant('-7'))),
      gateway_id: fc.option(digits),
      gateway_status: fc.option(fc.constantFrom(...WORDS)),
      inserted_at: fc.constantFrom(...TIMES),
    }),
    { minLength: 1, maxLength: 8 },
  ),
  odd,
});

test('text, binary and a copy give the same rows, whatever the types of the columns and whatever is in them', async () => {
  await db.owner
    .sql`create collation verification.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`;
  await db.owner.sql`alter table verification.verifications alter code drop not null`;
  await fc.assert(
    fc.asyncProperty(table, async ({ types, timezone, rows, odd }) => {
      const columns = Object.entries(types) as [keyof typeof types, string][];
      await db.owner.sql`truncate verification.verifications`;
      const changes = columns.map(([name, type]) => `alter ${name} type ${type} using null::${type}`);
      await db.owner.sql.unsafe(`alter table verification.verifications ${changes.join(', ')}`);
      await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
      try {
        const texts = columns.filter(([, type]) => type === 'text').map(([name]) => [name, odd]);
        const names = columns.map(([name]) => name).join(', ');
        const casts = columns.map(([, type], i) => `$${i + 1}::text::${type}`).join(', ');
        for (const each of [...rows, { ...rows[0]!, ...(Object.fromEntries(texts) as object) }]) {
          await db.owner.sql.unsafe(
            `insert into verification.verifications (id, check_digit, status, code_expired_at, active, ${names})
             values (gen_random_uuid(), 1, 'new', now(), false, ${casts})`,
            columns.map(([name]) => each[name]),
          );
        }
        const config = db.config({ SOURCE_TIMEZONE: timezone });
        const form = formOf(await describeSource(sql, config), config);
        expect(form.binary).toBe(true);
        const asText = await logged(AS_TEXT, rows.length + 1, timezone);
        expect(await logged(form, rows.length + 1, timezone)).toEqual(asText);
        expect(await copied(timezone)).toEqual(asText);
        const source = await describeSource(sql, config);
        expect(await audit(sql, config, source, { mirrorTimeoutMs: 0 }, new AbortController().signal)).toMatchObject({
          missing: 0,
          incomplete: 0,
          differing: 0,
        });
      } finally {
        await db.sql`select pg_drop_replication_slot(${db.name})`;
      }
    }),
    { numRuns: 50 },
  );
});

test('a column that gets another type in the middle of a transaction, also one whose binary form is not read, loses no row', async () => {
  const mirror = startMirror(db, { env: { SNAPSHOT: 'never' } });
  await mirror.streaming();
  const types = ['bigint', 'numeric', 'text', 'integer'];
  for (const type of types) {
    await db.owner.sql.begin(async (tx) => {
      await insertVerification(tx);
      await tx.unsafe(`alter table verification.verifications alter code type ${type} using code::${type}`);
      await insertVerification(tx);
    });
  }
  await until('every row', async () => {
    const same = await db.sql`
      select from verification.sms_log l join verification.verifications v using (id) where l.body like '% ' || v.code`;
    return same.length === 2 * types.length;
  });
  await mirror.stop();
});

/** A time zone is what PostgreSQL takes it for: `at time zone` takes a name that is also an abbreviation for the abbreviation, an offset that never changes. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { queryOfPool } from '../../src/schema/objects.ts';
import { command as run } from '../../src/commands/run.ts';
import { dryRun, migrate } from '../../src/schema/migrate.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { requireTimezones } from '../../src/timezones.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase({ empty: true });
  await createSource(db.sql);
});
afterAll(() => db.drop());

const refusal = async (zones: { SOURCE_TIMEZONE?: string; REPORT_TIMEZONE?: string }) => {
  const config = { SOURCE_TIMEZONE: 'UTC', REPORT_TIMEZONE: 'Europe/Kyiv', ...zones };
  return await requireTimezones(queryOfPool(db.sql), config).then(
    () => undefined,
    (error: unknown) => error,
  );
};

test('every name that PostgreSQL reads as an abbreviation is refused, with the nearest zone', async () => {
  const both = await db.sql<{ name: string }[]>`
    select name from pg_timezone_names where upper(name) in (select abbrev from pg_timezone_abbrevs) and name <> 'UTC'`;
  expect(both.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['CET', 'EET', 'EST', 'GMT', 'HST', 'MET', 'MST', 'WET']),
  );
  for (const { name } of both)
    expect(await refusal({ SOURCE_TIMEZONE: name })).toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(/SOURCE_TIMEZONE: .* abbreviation.*; the nearest is (UTC|[A-Z]\w+\/\w+)$/),
    });
  expect(await refusal({ SOURCE_TIMEZONE: 'EET', REPORT_TIMEZONE: 'IST' })).toMatchObject({
    message: expect.stringMatching(/SOURCE_TIMEZONE: .*Europe\/Kyiv\n.*REPORT_TIMEZONE: .*Asia\/(Kolkata|Calcutta)$/),
  });
});

test.for([
  'europe/kyiv',
  'Europe/kyiv',
  'utc',
  'PST',
  'JST',
  'posix/Europe/Kyiv',
  'Europe/Kyev',
  '<+03>-3',
  'EET-2EEST',
  '+03',
])('what is no name of pg_timezone_names is refused: %s', async (name) => {
  expect(await refusal({ REPORT_TIMEZONE: name })).toMatchObject({ code: 'config_invalid' });
});

test.for(['Asia/Kolkata', 'Asia/Kathmandu', 'Australia/Lord_Howe', 'America/St_Johns'])(
  'days that do not begin with an hour are refused, and read all the same: %s',
  async (zone) => {
    expect(await refusal({ REPORT_TIMEZONE: zone })).toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining('REPORT_TIMEZONE: its offset is not always a whole number of hours'),
    });
    expect(await refusal({ SOURCE_TIMEZONE: zone })).toBeUndefined();
  },
);

test.for([
  'UTC',
  'Europe/Kyiv',
  'Europe/Kiev',
  'America/Santiago',
  'EST5EDT',
  'Etc/GMT+2',
  'Japan',
  'Etc/UTC',
  'GB',
  'US/Pacific',
])('a name of pg_timezone_names is taken: %s', async (name) => {
  expect(await refusal({ SOURCE_TIMEZONE: name, REPORT_TIMEZONE: name })).toBeUndefined();
});

test('migrate refuses before it makes anything', async () => {
  const config = loadConfig({ DATABASE_URL: db.url, REPORT_TIMEZONE: 'EET' });
  await expect(migrate(config, { say: () => {} })).rejects.toMatchObject({ code: 'config_invalid' });
  expect(await db.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
});

test('migrate, and a daemon at its start, refuse another SOURCE_TIMEZONE than the one that the log was filled with', async () => {
  const options = { role: new URL(db.url).username, say: () => {} };
  const config = (zone: string) => ({ ...db.owner.config(), SOURCE_TIMEZONE: zone });
  await migrate(config('Europe/Kyiv'), options);
  await db.sql`insert into smslogd.checkpoint (slot_name, source_timezone) values ('another', 'UTC')`;
  const refused = {
    code: 'source_timezone',
    message: 'SOURCE_TIMEZONE is Europe/Kyiv, but the log was filled with UTC',
  };
  await expect(migrate(config('Europe/Kyiv'), options)).rejects.toMatchObject(refused);
  await expect(dryRun(config('Europe/Kyiv'), options)).rejects.toMatchObject(refused);
  const env = db.env({ SOURCE_TIMEZONE: 'Europe/Kyiv', LOOPS: 'mirror', HTTP_PORT: '0' });
  await expect(run.run({}, { env, print: options.say, stdoutIsTerminal: false })).rejects.toMatchObject(refused);
  await migrate(config('UTC'), options);
});

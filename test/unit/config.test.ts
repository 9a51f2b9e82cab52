import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { command } from '../../src/commands/config.ts';
import { currentCredentials } from '../../src/gateway/credentials.ts';
import { loadConfig, readSettings, settingNames, type Need } from '../../src/settings.ts';
import { describeSettings, settingsMarkdown, unknownSettings } from '../../src/settings-shown.ts';

const FULL = {
  DATABASE_URL: 'postgres://user:secret@db:5432/name',
  IP2SMS_URL: 'https://gateway.example/ip2sms/',
  IP2SMS_LOGIN: 'login-secret',
  IP2SMS_PASSWORD: 'password-secret',
};

function problemsOf(env: Record<string, string>, needs: readonly Need[] = []): string {
  try {
    loadConfig(env, needs);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
}

test('the defaults are those of the contract', () => {
  expect(loadConfig({})).toMatchObject({
    SOURCE_TABLE: 'verification.verifications',
    SOURCE_TIMEZONE: 'UTC',
    REPORT_TIMEZONE: 'Europe/Kyiv',
    SLOT_NAME: 'smslogd',
    PUBLICATION_NAME: 'smslogd',
    SNAPSHOT: 'initial',
    SMS_BODY: 'full',
    OTP_CODE_TEXT: 'Код авторизації дій в системі eHealth: ',
    IP2SMS_FORMAT: 'xml',
    IP2SMS_MAX_CONCURRENCY: 64,
    IP2SMS_MAX_RPS: 0,
    IP2SMS_TIMEOUT_MS: 8000,
    SMS_STATUSES_EXPIRATION: 35,
    SMS_STATUSES_GIVE_UP: 4320,
    RETENTION_DAYS: 0,
    HTTP_HOST: '127.0.0.1',
    HTTP_PORT: 9464,
    LOG_LEVEL: 'info',
    LOOPS: ['mirror', 'poller'],
  });
});

test('what a command needs is asked for by name, all of it at once', () => {
  const said = problemsOf({}, ['database', 'gateway']);
  for (const name of Object.keys(FULL)) expect(said).toContain(`${name}: is required`);
  expect(problemsOf(FULL, ['database', 'gateway'])).toBe('');
});

test.for([
  ['DATABASE_URL', 'mysql://secret'],
  ['DATABASE_URL', 'postgres://user:secret%@db/name'],
  ['DATABASE_REPLICATION_URL', 'postgres://db/secret?sslmode=verify_full'],
  ['SLOT_NAME', 'secret-slot'],
  ['SNAPSHOT', 'secret'],
  ['SOURCE_TIMEZONE', 'secret/zone'],
  // PostgreSQL would read it as three hours west
  ['SOURCE_TIMEZONE', '+03:00'],
  ['IP2SMS_URL', 'ftp://secret'],
  ['IP2SMS_LOGIN', 'sec:secret'],
  ['IP2SMS_MAX_CONCURRENCY', '0.5secret'],
  ['IP2SMS_TIMEOUT_MS', '1.5'],
  ['SMS_STATUSES_EXPIRATION', '0'],
  ['HTTP_PORT', '65536'],
  ['LOOPS', 'mirror,secret'],
] as const)('a wrong %s is named with its form and without its value', ([name, value]) => {
  const said = problemsOf({ [name]: value });
  expect(said).toMatch(new RegExp(`^ {2}${name}: must be .+`, 'm'));
  expect(said).not.toContain('secret');
});

test.for([
  ['nothing after it', 'a secret'],
  ['a line break', 'a secret\n'],
  ['line breaks', 'a secret\r\n\r\n\n'],
  ['blanks', 'a secret \t \n'],
  ['a byte order mark', '\ufeffa secret\n'],
] as const)('a secret in a file is the same with %s', ([, content]) => {
  const folder = mkdtempSync(join(tmpdir(), 'smslogd-config-'));
  try {
    const path = join(folder, 'secret');
    writeFileSync(path, content);
    const env = { IP2SMS_PASSWORD_FILE: path, IP2SMS_LOGIN_FILE: path };
    const config = loadConfig(env);
    expect(config).toMatchObject({ IP2SMS_PASSWORD: 'a secret', IP2SMS_LOGIN: 'a secret' });
    // the poller reads it again while it runs
    expect(currentCredentials({ IP2SMS_LOGIN: '', IP2SMS_PASSWORD: '' }, env)).toEqual({
      login: 'a secret',
      password: 'a secret',
    });
    writeFileSync(path, content.replace('a secret', 'postgres://db/name'));
    expect(loadConfig({ DATABASE_URL_FILE: path }).DATABASE_URL).toBe('postgres://db/name');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a text in a file keeps its blanks, an unreadable file is named with the reason and without its content', () => {
  const folder = mkdtempSync(join(tmpdir(), 'smslogd-config-'));
  try {
    const path = join(folder, 'text');
    writeFileSync(path, '\ufeffcode: \n');
    expect(loadConfig({ OTP_CODE_TEXT_FILE: path }).OTP_CODE_TEXT).toBe('code: ');
    expect(problemsOf({ IP2SMS_PASSWORD_FILE: join(folder, 'absent') })).toContain(
      `IP2SMS_PASSWORD_FILE: ${join(folder, 'absent')} cannot be read: no such file`,
    );
    expect(problemsOf({ IP2SMS_PASSWORD_FILE: folder })).toContain('cannot be read: it is a directory');
    expect(problemsOf({ IP2SMS_CERT_FILE_FILE: folder, IP2SMS_KEY_FILE: path })).not.toContain('is required with');
    expect(problemsOf({ IP2SMS_CA_FILE: folder })).toContain(
      `IP2SMS_CA_FILE: must be a file that can be read; ${folder}: it is a directory`,
    );
    // not the default, as if nothing had been named: what replaces a file may empty it first
    writeFileSync(path, '\n');
    expect(problemsOf({ DATABASE_URL: 'postgres://db/name', DATABASE_REPLICATION_URL_FILE: path })).toBe(
      `wrong settings:\n  DATABASE_REPLICATION_URL_FILE: ${path} cannot be read: it is empty`,
    );
    // the secret itself, in the wrong variable
    expect(problemsOf({ IP2SMS_PASSWORD_FILE: 'pa$$word' })).toContain(
      'IP2SMS_PASSWORD_FILE: the file cannot be read: no such file',
    );
    writeFileSync(path, Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from('secret', 'utf16le')]));
    const said = problemsOf({ IP2SMS_PASSWORD_FILE: path });
    expect(said).toContain('cannot be read: it is not UTF-8 text');
    expect(said).not.toContain('secret');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a certificate that cannot be read is a wrong setting, without its path', () => {
  const address = 'postgres://db/name?sslmode=verify-full&sslrootcert=/nowhere/secret';
  const said = problemsOf({ DATABASE_URL: address });
  expect(said).toContain('DATABASE_URL: must be an address whose sslrootcert is a file that can be read: no such file');
  expect(said).not.toContain('secret');
});

test('a wrong variable of libpq is told once, by its own name', () => {
  const env = { DATABASE_URL: 'postgres://a/b', DATABASE_REPLICATION_URL: 'postgres://c/d', PGSSLMODE: 'verify' };
  expect(problemsOf(env)).toMatch(/^wrong settings:\n {2}PGSSLMODE: must be one of disable, .+$/);
});

test('an empty value counts as unset, and decimals of a minute are allowed', () => {
  expect(loadConfig({ SLOT_NAME: '', SMS_STATUSES_EXPIRATION: '0.5' })).toMatchObject({
    SLOT_NAME: 'smslogd',
    SMS_STATUSES_EXPIRATION: 0.5,
  });
});

test.for([
  ['https://gateway.example/ip2sms/', 'https://gateway.example/ip2sms-request/'],
  ['https://gateway.example/clients.php', 'https://gateway.example/clients.php'],
])('statuses of %s are asked for at %s', ([sending, asking]) => {
  expect(loadConfig({ IP2SMS_URL: sending }).IP2SMS_STATUS_URL).toBe(asking);
});

test('`run` needs the gateway where LOOPS names the poller, also where LOOPS stands in a file', () => {
  const { DATABASE_URL } = FULL;
  const folder = mkdtempSync(join(tmpdir(), 'smslogd-config-'));
  try {
    writeFileSync(join(folder, 'loops'), 'mirror\n');
    expect(problemsOf({ DATABASE_URL, LOOPS_FILE: join(folder, 'loops') }, ['database', 'loops'])).toBe('');
  } finally {
    rmSync(folder, { recursive: true });
  }
  expect(problemsOf({ DATABASE_URL, LOOPS: 'mirror' }, ['database', 'loops'])).toBe('');
  expect(problemsOf({ DATABASE_URL }, ['database', 'loops'])).toContain('IP2SMS_URL: is required');
});

test('an address that is there is not called missing because a variable of libpq beside it is wrong', () => {
  const said = problemsOf({ ...FULL, PGSSLMODE: 'full' }, ['database']);
  expect(said).toContain('PGSSLMODE: must be');
  expect(said).not.toContain('is required');
});

test('the settings in force are printed without a secret', () => {
  const said = describeSettings(
    readSettings({
      ...FULL,
      IP2SMS_STATUS_URL: 'https://user:secret@gateway.example/status?a=secret',
      DATABASE_REPLICATION_URL: 'postgres:///name?host=db&password=secret&sslmode=require',
    }),
    {},
  );
  expect(said).toContain('IP2SMS_STATUS_URL=https://****@gateway.example/status?****\n');
  expect(said).not.toContain('secret');
  expect(said).toContain('DATABASE_URL=postgres://****@db:5432/name\n');
  expect(said).toContain('DATABASE_REPLICATION_URL=postgres:///name?host=db&password=****&sslmode=require\n');
  expect(said).toContain('SMS_BODY=full');
  expect(said.split('\n')).toHaveLength(settingNames().length);
});

test('`config` works without a database, and --markdown has a row for each setting', async () => {
  const lines: string[] = [];
  const io = { env: {}, print: (line: string) => lines.push(line), stdoutIsTerminal: false };
  expect(await command.run({}, io)).toBe(0);
  expect(await command.run({ markdown: true }, io)).toBe(0);
  expect(lines[1]).toBe(settingsMarkdown());
  for (const name of settingNames()) expect(lines[1]).toContain(`| \`${name}\` |`);
});

test('`config` marks what is wrong in its place and shows the rest, also as JSON', async () => {
  const env = {
    ...FULL,
    HTTP_PORT: 'secret',
    IP2SMS_PASSWORD_FILE: '/nowhere/password',
    PGSSLMODE: 'full',
    RETENTION_DAY: '30',
    SLOT_NAME: 'mine',
  };
  const lines: string[] = [];
  const io = { env, print: (line: string) => lines.push(line), stdoutIsTerminal: false };
  expect(await command.run({}, io)).toBe(1);
  const rows = lines[0]!.split('\n');
  expect(rows).toContain('SLOT_NAME=mine');
  expect(rows).toContain('! HTTP_PORT: must be a whole number from 0 to 65535');
  expect(rows).toContain('! IP2SMS_PASSWORD_FILE: /nowhere/password cannot be read: no such file');
  expect(rows.some((row) => row.startsWith('! PGSSLMODE: must be one of disable, '))).toBe(true);
  expect(rows.at(-1)).toBe('! RETENTION_DAY: is no setting of smslogd; the nearest is RETENTION_DAYS');
  expect(lines[0]).not.toContain('secret');

  expect(await command.run({ json: true }, io)).toBe(1);
  expect(JSON.parse(lines[1]!)).toMatchObject({
    settings: { SLOT_NAME: 'mine', HTTP_PORT: null, IP2SMS_LOGIN: '****', SMS_BODY: 'full' },
    wrong: { HTTP_PORT: 'must be a whole number from 0 to 65535' },
    unknown: { RETENTION_DAY: 'is no setting of smslogd; the nearest is RETENTION_DAYS' },
  });
  expect(lines[1]).not.toContain('secret');
});

test.each([
  ['HTTP_PORT', ' ', 'must be a whole number from 0 to 65535'],
  ['RETENTION_DAYS', '\t', 'must be a whole number from 0 to 36500'],
  ['SMS_STATUSES_GIVE_UP', ' ', 'must be a number of minutes'],
  ['HTTP_ALLOWED_HOSTS', 'page.example,*.example', 'must be host names without ports, separated by commas'],
  ['PUBLICATION_NAME', 'x'.repeat(64), 'must be at most 63 characters'],
])('%s=%j is refused by its form: blanks are no 0, and a pattern is no name', (name, value, sentence) => {
  expect([...readSettings({ [name]: value }).wrong]).toEqual([[name, sentence]]);
});

const names = (env: Record<string, string>) => unknownSettings(env).map(({ sentence }) => sentence.split(' ').at(-1));

test('a name that begins like a setting, or is nearly one, is told with the nearest; names of others are not', () => {
  expect(names({ RETENTION_DAY: '1' })).toEqual(['RETENTION_DAYS']);
  expect(names({ IP2SMS_PASSWD: 'x' })).toEqual(['IP2SMS_PASSWORD']);
  expect(names({ IPSMS_PASSWORD_FILE: '/x' })).toEqual(['IP2SMS_PASSWORD_FILE']);
  expect(names({ DATABSE_URL: 'x' })).toEqual(['DATABASE_URL']);
  expect(
    names({
      HTTP_PROXY: 'http://proxy',
      HTTPS_PROXY: 'x',
      NO_PROXY: 'x',
      SOURCE_DATE_EPOCH: '1',
      DATABASE_SERVICE_HOST: '10.0.0.1',
      DATABASE_PORT_5432_TCP: 'tcp://10.0.0.1:5432',
      PATH: '/bin',
      HOSTNAME: 'pod',
      LOGNAME: 'me',
      DATABASE_URL_FILE: '/x',
      LOG_LEVEL: 'info',
      OTP_LENGTH: '',
    }),
  ).toEqual([]);
});

test.each([
  ['SMS_STATUSES_GIVE_UP', { SMS_STATUSES_GIVE_UP: '34' }],
  ['SMS_STATUSES_GIVE_UP', { SMS_STATUSES_GIVE_UP: '90', SMS_STATUSES_EXPIRATION: '90.5' }],
  ['RETENTION_DAYS', { RETENTION_DAYS: '1', SMS_STATUSES_EXPIRATION: '1441' }],
])('%s: a time to give up that is shorter than the life is refused: it would judge SMS that live', (name, env) => {
  expect(() => loadConfig(env, [])).toThrow(`${name}: must be no shorter than SMS_STATUSES_EXPIRATION`);
  expect(loadConfig({ SMS_STATUSES_GIVE_UP: '35' }, []).SMS_STATUSES_GIVE_UP).toBe(35);
});

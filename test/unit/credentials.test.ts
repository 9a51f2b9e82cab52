import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { currentCredentials, recentCredentials } from '../../src/gateway/credentials.ts';

const CONFIG = { IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'from the start' };

test('a secret in a file is read again each time, and the one from the start stays where it cannot be', () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  try {
    const path = join(directory, 'password');
    const env = { IP2SMS_PASSWORD_FILE: path };
    expect(currentCredentials(CONFIG, env)).toEqual({ login: 'login', password: 'from the start' });
    writeFileSync(path, 'first\n');
    expect(currentCredentials(CONFIG, env).password).toBe('first');
    writeFileSync(path, 'second\r\n');
    expect(currentCredentials(CONFIG, env).password).toBe('second');
    writeFileSync(path, '');
    expect(currentCredentials(CONFIG, env).password).toBe('from the start');
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('without files the settings count', () => {
  expect(currentCredentials(CONFIG, {})).toEqual({ login: 'login', password: 'from the start' });
});

test('under load they are read once a second, and anew for a try that comes later', () => {
  let now = 0;
  let reads = 0;
  const credentials = recentCredentials(
    () => ({ login: 'login', password: String((reads += 1)) }),
    () => now,
  );
  for (now = 0; now < 1_000; now += 1) expect(credentials().password).toBe('1');
  now = 1_000;
  expect(credentials().password).toBe('2');
});

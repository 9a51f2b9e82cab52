import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { currentCredentials } from '../../src/poller/credentials.ts';

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

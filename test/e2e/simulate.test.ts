import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { request } from 'undici';
import { describe, expect, it } from 'vitest';

const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
const AUTHORIZATION = `Basic ${Buffer.from('smslogd:smslogd').toString('base64')}`;

describe('smslogd simulate', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)(
    'says where it listens, serves, and ends on %s with 0 and the counts, showing nothing personal',
    async (signal) => {
      const child = spawn(process.execPath, ['--import', 'tsx', CLI, 'simulate', '--port', '0', '--seed', '1'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      const lines: string[] = [];
      const reader = createInterface({ input: child.stdout });
      reader.on('line', (line) => lines.push(line));
      const ended = once(reader, 'close');
      await once(reader, 'line');
      const url = /IP2SMS_URL=(\S+) IP2SMS_LOGIN=smslogd IP2SMS_PASSWORD=smslogd$/.exec(lines[0]!)![1]!;
      const sent = await request(url, {
        method: 'POST',
        headers: { authorization: AUTHORIZATION, 'content-type': 'text/xml' },
        body: '<message><service id="single"/><to>380001234567</to><body>text</body></message>',
      });
      const id = /id='([0-9]+)'/.exec(await sent.body.text())![1]!;
      child.kill(signal);
      expect(await exited).toEqual([0, null]);
      await ended;
      expect(lines.at(-1)).toBe('SMS 1, status requests 0, sent 1, faults 0, unauthorized 0, not recognized 0');
      expect(lines.join('\n')).not.toMatch(new RegExp(`${id}|380001234567`));
    },
  );
});

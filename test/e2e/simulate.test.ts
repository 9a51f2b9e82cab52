import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { request } from 'undici';
import { describe, expect, it } from 'vitest';
import { PROGRAM } from '../support/program.ts';

const AUTHORIZATION = `Basic ${Buffer.from('smslogd:smslogd').toString('base64')}`;

describe('smslogd simulate', () => {
  it('dies for the time that it is told, and its faults are switched while it runs', async () => {
    const flags = ['--port', '0', '--adopt', '--reset', '1', '--for', '1h', '--speed', '1000000'];
    const child = spawn(process.execPath, [...PROGRAM, 'simulate', ...flags], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const url = /IP2SMS_URL=(\S+)/.exec(line)![1]!;
    const send = async (path: string, method: 'GET' | 'POST' | 'PUT' | 'DELETE', body?: string) => {
      const headers = { authorization: AUTHORIZATION, 'content-type': 'text/xml' };
      const reply = await request(url.replace('/ip2sms/', path), {
        method,
        headers,
        ...(body === undefined ? {} : { body }),
      });
      return { code: reply.statusCode, text: await reply.body.text() };
    };
    const ask = () => send('/ip2sms-request/', 'POST', '<request id="1000007">status</request>');
    try {
      await expect(ask()).rejects.toThrow(/ECONNRESET|other side closed/);
      expect(JSON.parse((await send('/faults', 'GET')).text)).toMatchObject({
        now: 'reset 1',
        requests: { faults: 1 },
      });
      expect((await send('/faults', 'PUT', 'error=1&for=5m')).text).toContain('"now":"error 1"');
      expect((await ask()).code).toBe(503);
      await send('/faults', 'DELETE');
      expect((await ask()).text).toMatch(/^<status id='1000007' date='[^']+'><state>[A-Z][a-z]+<\/state><\/status>$/);
    } finally {
      child.kill();
      await exited;
    }
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'says where it listens, serves, and ends on %s with 0 and the counts, showing nothing personal',
    async (signal) => {
      const child = spawn(process.execPath, [...PROGRAM, 'simulate', '--port', '0', '--seed', '1'], {
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
      expect(lines.at(-1)).toBe(
        'SMS 1, status requests 0, sent 1, faults 0, unauthorized 0, not recognized 0; now: none',
      );
      expect(lines.join('\n')).not.toMatch(new RegExp(`${id}|380001234567`));
    },
  );
});

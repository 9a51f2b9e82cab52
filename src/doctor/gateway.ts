/** Asks the gateway for the status of an id that nobody has: any answer but a refused login shows that it can be asked. */
import { request } from 'undici';
import type { Config } from '../config.ts';
import { fail, ok, warn, type Finding } from './check.ts';

const NOBODYS_ID = '1000001';

export async function askGateway(config: Config): Promise<Finding> {
  const json = config.IP2SMS_FORMAT === 'json';
  let answer: { status: number; start: string };
  try {
    const { statusCode, body } = await request(config.IP2SMS_STATUS_URL ?? '', {
      method: 'POST',
      headers: {
        authorization: `Basic ${Buffer.from(`${config.IP2SMS_LOGIN}:${config.IP2SMS_PASSWORD}`).toString('base64')}`,
        'content-type': json ? 'application/json' : 'text/xml; charset=utf-8',
      },
      body: json
        ? JSON.stringify({ extended: true, id: Number(NOBODYS_ID), value: 'state' })
        : `<request id="${NOBODYS_ID}">status</request>`,
      signal: AbortSignal.timeout(config.IP2SMS_TIMEOUT_MS),
    });
    answer = { status: statusCode, start: (await startOf(body)).trimStart() };
  } catch {
    return fail(
      `no answer within ${config.IP2SMS_TIMEOUT_MS} ms`,
      'check IP2SMS_URL and IP2SMS_STATUS_URL, and that this host may connect there',
    );
  }
  // some installations refuse a login with status 200 and a line of text
  if (answer.status === 401 || answer.status === 403 || /^40[13]\b/.test(answer.start))
    return fail('it refuses the login', 'check IP2SMS_LOGIN and IP2SMS_PASSWORD');
  if (answer.status >= 500 || answer.status === 429)
    return warn(`it answers, with HTTP ${answer.status}: it has trouble of its own now`);
  if (answer.status >= 300)
    return warn(
      `it answers a made-up id with HTTP ${answer.status}: perhaps the address is wrong`,
      'check IP2SMS_STATUS_URL',
    );
  if (!/^[<{]/.test(answer.start) && !answer.start.startsWith('Request not recognized'))
    return warn('it answers with something else than a status', 'check IP2SMS_STATUS_URL and IP2SMS_FORMAT');
  return ok('it answers and takes the login');
}

/** The first bytes of an answer, enough to tell its kind; the rest is dropped. Never shown: a gateway may echo what it was asked. */
async function startOf(body: AsyncIterable<Buffer>): Promise<string> {
  for await (const chunk of body) return chunk.subarray(0, 64).toString('utf8');
  return '';
}

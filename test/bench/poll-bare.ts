/**
 * The reference of `poll`: undici and the parser alone. PLACES requests at once until TOTAL are answered, for the gateway ids from
 * FIRST on; prints how many milliseconds it took.
 * `node --import tsx poll-bare.ts URL TOTAL PLACES FIRST`
 */
import { Pool } from 'undici';
import { parseReply } from '../../src/gateway/reply.ts';

const [address = '', total, places, first] = process.argv.slice(2);
const url = new URL(address);
const pool = new Pool(url.origin, { connections: Number(places), pipelining: 1 });
const headers = { authorization: `Basic ${btoa('login:password')}`, 'content-type': 'text/xml; charset=utf-8' };
let next = 0;

async function place(): Promise<void> {
  while (next < Number(total)) {
    const id = String(Number(first) + next);
    next += 1;
    const body = `<request id="${id}">status</request>`;
    const response = await pool.request({ method: 'POST', path: url.pathname, headers, body });
    if (parseReply(await response.body.bytes(), id).kind !== 'status') throw new Error('a reply was no status');
  }
}

const began = performance.now();
await Promise.all(Array.from({ length: Number(places) }, place));
process.stdout.write(`${performance.now() - began}\n`);
await pool.close();

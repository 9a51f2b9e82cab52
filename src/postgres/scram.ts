/** The client's side of SCRAM-SHA-256 (RFC 7677) without channel binding, and the older forms of a password. */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { saslprep } from '@mongodb-js/saslprep';

const derive = promisify(pbkdf2);
/** More would hold the process up: PostgreSQL has 4096. */
const MAX_ITERATIONS = 1_000_000;

export interface Scram {
  readonly first: string;
  /** the answer to the server's first message; undefined where that is none */
  answer(serverFirst: string): Promise<string | undefined>;
  /** true where the server has shown that it knows the password, too */
  proves(serverFinal: string): boolean;
}

export function createScram(password: string): Scram {
  const nonce = randomBytes(18).toString('base64');
  const bare = `n=*,r=${nonce}`;
  let signature: Buffer | undefined;
  return {
    first: `n,,${bare}`,
    async answer(serverFirst) {
      const [, both = '', salt = '', count = ''] = /^r=([^,]+),s=([^,]+),i=(\d{1,9})/.exec(serverFirst) ?? [];
      const iterations = Number(count);
      if (!both.startsWith(nonce) || both === nonce || iterations < 1 || iterations > MAX_ITERATIONS) return undefined;
      const salted = await derive(prepared(password), Buffer.from(salt, 'base64'), iterations, 32, 'sha256');
      const clientKey = hmac(salted, 'Client Key');
      const withoutProof = `c=biws,r=${both}`;
      const exchange = `${bare},${serverFirst},${withoutProof}`;
      const mask = hmac(createHash('sha256').update(clientKey).digest(), exchange);
      signature = hmac(hmac(salted, 'Server Key'), exchange);
      return `${withoutProof},p=${Buffer.from(clientKey.map((byte, i) => byte ^ (mask[i] ?? 0))).toString('base64')}`;
    },
    proves(serverFinal) {
      const theirs = Buffer.from(/^v=([^,]+)/.exec(serverFinal)?.[1] ?? '', 'base64');
      return signature !== undefined && theirs.length === signature.length && timingSafeEqual(theirs, signature);
    },
  };
}

/**
 * As libpq and the server: what SASLprep forbids is taken as it is. They look for forbidden and unassigned characters before they normalize, RFC 4013 and our
 * library afterwards.
 */
function prepared(password: string): string {
  if (GONE_WHEN_NORMALIZED.test(password)) return password;
  try {
    return saslprep(password) || password;
  } catch {
    return password;
  }
}

/** What RFC 3454 forbids, or Unicode 3.2 did not have (tables C.8 and A.1), and NFKC makes another character of; in ranges that hold nothing else but such. */
const GONE_WHEN_NORMALIZED =
  /[\u0340\u0341\u03f9\u10fc\u1d2c-\u1dbf\u2090-\u209c\u213b\u213c\u2150-\u2152\u2189\u2c7c\u2c7d\u321d\u321e\u3244-\u3250\u327c-\u327e\u32cc-\u32cf\u32ff\u3377-\u337a\u33de\u33df\u33ff\ua69c-\uab69\ufa2e\ufa2f\ufa6b-\ufad9\ufe10-\ufe19\ufe47\ufe48\u{10781}-\u{1ccf9}\u{1d4c1}\u{1d6a4}\u{1d7ca}\u{1d7cb}\u{1e030}-\u{1fbf9}]/u;

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function md5(...parts: (string | Buffer)[]): string {
  return parts.reduce((hash, part) => hash.update(part), createHash('md5')).digest('hex');
}

export function md5Password(user: string, password: string, salt: Buffer): string {
  return `md5${md5(md5(password, user), salt)}`;
}

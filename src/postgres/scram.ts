/** The client's side of SCRAM-SHA-256 (RFC 7677) without channel binding, and the older forms of a password. */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

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
      const salted = await derive(await prepared(password), Buffer.from(salt, 'base64'), iterations, 32, 'sha256');
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

/** Of these SASLprep changes none, and what it forbids among them is taken as it is. */
const ASCII = /^[\0-\x7f]*$/;

/** The tables of SASLprep take a tenth of the program's start: they are loaded where they are needed. */
async function prepared(password: string): Promise<string> {
  return ASCII.test(password) ? password : (await import('./saslprep.ts')).prepared(password);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function md5(...parts: (string | Buffer)[]): string {
  return parts.reduce((hash, part) => hash.update(part), createHash('md5')).digest('hex');
}

export function md5Password(user: string, password: string, salt: Buffer): string {
  return `md5${md5(md5(password, user), salt)}`;
}

/** Tells the server who we are: the password in the form that it asks for, and nothing that the address forbids. */
import type { Socket } from 'node:net';
import { SmslogdError } from '../errors.ts';
import type { Address, Host } from './address.ts';
import { failure, framed, type Incoming } from './messages.ts';
import { passwordOf } from './passfile.ts';
import { createScram, md5Password } from './scram.ts';

/** The server's numbers for what smslogd cannot do. */
const OTHERS: Readonly<Record<number, string>> = { 2: 'Kerberos', 6: 'SCM credentials', 7: 'GSSAPI', 9: 'SSPI' };

/**
 * Resolves once the server has let us in. `readable`: others can read along. `owes` is told from when to when the server waits for a proof of the password.
 * Throws ServerRefusal, or database_auth for what we do not do.
 */
export async function authenticate(
  socket: Socket,
  incoming: Incoming,
  address: Address,
  { host, readable, owes = () => {} }: { host: Host; readable: boolean; owes?: (word: boolean) => void },
): Promise<void> {
  const send = (body: Buffer) => void socket.write(framed('p', body));
  const password = () => passwordOf(address, host);
  let method = 'none';
  for (;;) {
    const { kind, body } = await request(incoming);
    if (kind === 0) {
      requireMethod(address, method);
      return;
    }
    if (kind === 3) {
      method = requireMethod(address, 'password');
      if (readable && !address.plainSaid) throw refused(IN_CLEAR, IN_CLEAR_HINT);
      send(Buffer.from(`${password()}\0`));
    } else if (kind === 5) {
      method = requireMethod(address, 'md5');
      send(Buffer.from(`${md5Password(address.user, password(), body)}\0`));
    } else if (kind === 10) {
      method = requireMethod(address, 'scram-sha-256');
      owes(true);
      await exchange(incoming, send, body, password(), () => owes(false));
    } else {
      throw refused(
        `the server asks for ${OTHERS[kind] ?? `login method ${kind}`}, which smslogd does not know`,
        METHOD_HINT,
      );
    }
  }
}

const IN_CLEAR = 'the server asks for the password in clear text, and the connection is not encrypted';
const IN_CLEAR_HINT =
  'Encrypt the connection (sslmode=verify-full), let pg_hba.conf ask for scram-sha-256, or say sslmode=disable if the network is to be trusted.';
const METHOD_HINT = 'Let pg_hba.conf ask for scram-sha-256, or for a client certificate (sslcert, sslkey).';

function refused(sentence: string, hint: string): SmslogdError {
  return new SmslogdError('database_auth', sentence, { hint });
}

/** The server's next request of the login: its number and what belongs to it. */
async function request(incoming: Incoming): Promise<{ readonly kind: number; readonly body: Buffer }> {
  const { type, body } = await incoming.message();
  // the protocol's options that the server does not know
  if (type === 'v') return request(incoming);
  if (type !== 'R' || body.length < 4) throw failure('PROTOCOL_VIOLATION', 'no message of a login');
  return { kind: body.readInt32BE(0), body: body.subarray(4) };
}

/** require_auth: some methods alone, or, with !, all but some. */
function requireMethod({ requireAuth }: Address, method: string): string {
  if (requireAuth.length === 0) return method;
  const forbids = requireAuth[0]?.startsWith('!') === true;
  if (forbids === requireAuth.includes(forbids ? `!${method}` : method))
    throw refused(`the server uses the login method ${method}, which require_auth does not allow`, METHOD_HINT);
  return method;
}

/** SCRAM-SHA-256; the server must prove that it knows the password, too. */
async function exchange(
  incoming: Incoming,
  send: (body: Buffer) => void,
  offer: Buffer,
  password: string,
  proving: () => void,
): Promise<void> {
  const mechanisms = offer.toString().split('\0');
  if (!mechanisms.includes('SCRAM-SHA-256'))
    throw refused(
      `the server offers ${mechanisms.filter((word) => word !== '').join(', ')}, which smslogd does not know`,
      METHOD_HINT,
    );
  const scram = createScram(password);
  const first = Buffer.from(scram.first);
  const length = Buffer.alloc(4);
  length.writeInt32BE(first.length);
  send(Buffer.concat([Buffer.from('SCRAM-SHA-256\0'), length, first]));
  const answer = await scram.answer(await words(incoming, 11));
  if (answer === undefined) throw UNPROVEN;
  proving();
  send(Buffer.from(answer));
  if (!scram.proves(await words(incoming, 12))) throw UNPROVEN;
}

const UNPROVEN = refused(
  'the server does not know the password that it asks for',
  'Something else than PostgreSQL answers there: check the host, and use sslmode=verify-full.',
);

async function words(incoming: Incoming, kind: number): Promise<string> {
  const { kind: came, body } = await request(incoming);
  if (came !== kind) throw UNPROVEN;
  return body.toString();
}

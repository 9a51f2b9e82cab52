/** Whether others on the network can read along, or answer in the server's place. */
import { addressOf, type Address, type Host } from '../postgres/address.ts';
import { verifies } from '../postgres/tls.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

/** Verified TLS, or no network in between; without it in so many words, or without a word. */
type Safety = 'safe' | 'said' | 'unsafe';

export const encryptionCheck: Check<Found> = needing('encryption', ['config'], async ({ config }) => {
  const addresses = { DATABASE_URL: config.DATABASE_URL, DATABASE_REPLICATION_URL: config.DATABASE_REPLICATION_URL };
  const of = (wanted: Safety) =>
    Object.entries(addresses)
      .filter(([, text]) => safetyOf(addressOf(text ?? '')) === wanted)
      .map(([name]) => name)
      // one is the other's default
      .slice(0, config.DATABASE_URL === config.DATABASE_REPLICATION_URL ? 1 : 2)
      .join(' and ');
  const unsafe = of('unsafe');
  if (unsafe !== '')
    return fail(
      `${unsafe}: the server is not verified, so whoever answers in its place gets the login and every SMS`,
      'add sslmode=verify-full&sslrootcert=FILE, with the certificate of its authority (or sslrootcert=system) -- sslmode=disable if the network is trusted',
    );
  const said = of('said');
  if (said !== '')
    return warn(
      `${said}: sslmode=disable, so the network in between can read everything`,
      'sslmode=verify-full&sslrootcert=FILE',
    );
  return ok('verified TLS, or no network in between');
});

function safetyOf(address: Address): Safety {
  if (address.hosts.every(isHere) || verifies(address.tls)) return 'safe';
  return address.plainSaid ? 'said' : 'unsafe';
}

/** A local socket or the loopback interface. */
function isHere({ name, ip }: Host): boolean {
  return /^(?:$|\/|@|localhost$|127\.|::1$)/.test(ip ?? name);
}

/** The password of an address: its own, PGPASSWORD, or that of libpq's password file. */
import { createReadStream, statSync } from 'node:fs';
import { getPassword } from 'pgpass/lib/helper.js';
import { SmslogdError } from '../errors.ts';
import type { Address, Host } from './address.ts';

/** Throws database_auth where there is none. */
export async function passwordOf(address: Address, host: Host): Promise<string> {
  if (address.password !== '') return address.password;
  const state = stateOf(address.passwordFile);
  const found = state === 'usable' ? await lookUp(address, host) : undefined;
  if (found !== undefined) return found;
  const said =
    state === 'open to others' ? '; the password file is not used, as its permissions let others read it' : '';
  throw new SmslogdError('database_auth', `the server asks for a password, and there is none${said}`, {
    hint: 'Put it into the address, into PGPASSWORD, or into a file that PGPASSFILE names (~/.pgpass) with the permissions 0600.',
  });
}

/** libpq does not take a file that others may read. */
function stateOf(path: string): 'usable' | 'absent' | 'open to others' {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true) return 'absent';
  return (stats.mode & 0o077) === 0 ? 'usable' : 'open to others';
}

function lookUp({ passwordFile, user, database }: Address, { name, ip, port }: Host): Promise<string | undefined> {
  const isDefault = name === '' || name === '/var/run/postgresql' || name === '/tmp';
  const host = isDefault ? (ip ?? 'localhost') : name;
  return new Promise((resolve) => {
    getPassword({ host, port, database, user }, createReadStream(passwordFile), resolve);
  });
}

/**
 * The password of an address: its own, PGPASSWORD, or that of libpq's password file. The file is read here: the library pgpass takes the last line that fits
 * where libpq takes the first, and leaves out short ones.
 */
import { readFileSync, statSync } from 'node:fs';
import { SmslogdError } from '../errors.ts';
import type { Address, Host } from './address.ts';

/** Throws database_auth where there is none. */
export function passwordOf(address: Address, host: Host): string {
  if (address.password !== '') return address.password;
  const state = stateOf(address.passwordFile);
  const found = state === 'usable' ? lookUp(address, host) : undefined;
  if (found !== undefined) return found;
  const open = state === 'open to others';
  const said = open ? ` in use: the permissions of ${address.passwordFile} let others read it` : '';
  throw new SmslogdError('database_auth', `the server asks for a password, and there is none${said}`, {
    hint: open
      ? `Run: chmod 600 ${address.passwordFile}`
      : 'Put it into the address, into PGPASSWORD, or into a file that PGPASSFILE names (~/.pgpass) with the permissions 0600.',
  });
}

/** libpq does not take a file that others may read. */
function stateOf(path: string): 'usable' | 'absent' | 'open to others' {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true) return 'absent';
  return (stats.mode & 0o077) === 0 ? 'usable' : 'open to others';
}

/** The directories of the socket where no host is said: they count as localhost. */
const USUAL = ['', '/var/run/postgresql', '/tmp'];

/** host:port:database:user:password, any but the last may be *; the first line that fits. */
function lookUp({ passwordFile, user, database }: Address, { name, ip, port }: Host): string | undefined {
  const wanted = [USUAL.includes(name) ? (ip ?? 'localhost') : name, String(port), database, user];
  for (const line of linesOf(passwordFile)) {
    const fields = fieldsOf(line);
    const [password] = fields.slice(wanted.length);
    if (password !== undefined && wanted.every((value, i) => fields[i] === '*' || fields[i] === value)) return password;
  }
  return undefined;
}

function linesOf(path: string): string[] {
  try {
    const lines = readFileSync(path, 'utf8').split(/\r*\n/);
    return lines.filter((line) => line !== '' && !line.startsWith('#'));
  } catch {
    return [];
  }
}

/** Split at colons; a backslash takes the next character as it is. */
function fieldsOf(line: string): string[] {
  const fields = [''];
  for (const [escaped, character] of Array.from(line.matchAll(/\\(.)|(.)/gsu), (found) => [found[1], found[2]])) {
    if (character === ':') fields.push('');
    else fields[fields.length - 1] += escaped ?? character ?? '';
  }
  return fields;
}

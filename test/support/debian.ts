/** The programs of Debian's PostgreSQL, which compiles plans (jit); the embedded ones do not. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const HOME = '/usr/lib/postgresql';

/** The newest one's directory; throws where there is none. */
function programs(): string {
  const newest = existsSync(HOME)
    ? readdirSync(HOME)
        .sort((a, b) => Number(a) - Number(b))
        .at(-1)
    : undefined;
  const bin = join(HOME, newest ?? '', 'bin');
  if (!existsSync(join(bin, 'postgres'))) throw new Error("Debian's PostgreSQL is missing: apt-get install postgresql");
  return bin;
}

/** A file for createCluster's `package`. */
export function debianPackage(): string {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-debian-'));
  process.once('exit', () => rmSync(directory, { recursive: true }));
  const file = join(directory, 'postgres.mjs');
  writeFileSync(file, `export const postgres = ${JSON.stringify(join(programs(), 'postgres'))};`);
  return file;
}

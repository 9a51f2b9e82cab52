/** The programs of Debian's PostgreSQL, which compiles plans (jit); the embedded ones do not. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const HOME = '/usr/lib/postgresql';

/** The newest one's directory, for createCluster's `binaries`; throws where there is none. */
export function debianBinaries(): string {
  const newest = existsSync(HOME)
    ? readdirSync(HOME)
        .sort((a, b) => Number(a) - Number(b))
        .at(-1)
    : undefined;
  const bin = join(HOME, newest ?? '', 'bin');
  if (!existsSync(join(bin, 'postgres'))) throw new Error("Debian's PostgreSQL is missing: apt-get install postgresql");
  return bin;
}

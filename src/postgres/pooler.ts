/**
 * Whether queries go through a pooler in transaction mode, such as PgBouncer: said by DATABASE_POOLED, or found by the first connection. A pooler gives
 * itself away in two ways: it refuses the start-up parameter `options`, or the process that it names in the greeting is not the one that answers.
 */
import type { Config } from '../settings.ts';
import { ServerRefusal } from '../errors.ts';
import type { Address } from './address.ts';
import { logIn, type Session, type Startup, type Surroundings } from './login.ts';

type Pooling = Pick<Config, 'DATABASE_URL' | 'DATABASE_POOLED'>;

/** What was found, by address. */
const FOUND = new Map<string, boolean>();

/** True where queries go through a pooler; with DATABASE_POOLED=auto that is known once a connection was made. */
export function isPooled({ DATABASE_URL = '', DATABASE_POOLED }: Pooling): boolean {
  return DATABASE_POOLED === 'true' || (DATABASE_POOLED === 'auto' && FOUND.get(DATABASE_URL) === true);
}

/** Logs in for queries, with `startup`, or with `pooled` where that goes through a pooler. */
export async function logInForQueries(
  config: Pooling,
  address: Address,
  { startup, pooled, ...surroundings }: { startup: Startup; pooled: Startup } & Surroundings,
): Promise<Session> {
  if (isPooled(config)) return logIn(address, pooled, surroundings);
  const url = config.DATABASE_URL ?? '';
  const asks = config.DATABASE_POOLED === 'auto' && !FOUND.has(url);
  try {
    const session = await logIn(address, startup, surroundings, asks);
    if (session.pooled !== undefined) FOUND.set(url, session.pooled);
    return session;
  } catch (error) {
    if (config.DATABASE_POOLED !== 'auto' || !(error instanceof ServerRefusal) || error.code !== '08P01') throw error;
    const session = await logIn(address, pooled, surroundings);
    FOUND.set(url, true);
    return session;
  }
}

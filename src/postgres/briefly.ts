/**
 * Short statements on a table that is not ours: every one that touches the source goes through here. It holds the table's lock to its end, and while it waits
 * for that lock itself, whoever wants a stronger one waits behind it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../errors.ts';
import { lastRows } from './last-row.ts';
import type { Sql } from './pools.ts';
import { quoteLiteral, setLocal } from './quoting.ts';
import { LOCK_NOT_AVAILABLE } from './refusal.ts';

const LOCK_TIMEOUT_MS = 300;
const STATEMENT_TIMEOUT_MS = 350;
const AGAIN_MS = 500;

const BRIEFLY = setLocal([
  // a stricter level, as a pooler's sessions may have, takes its snapshot before it has its locks
  "transaction_isolation = 'read committed'",
  `lock_timeout = ${LOCK_TIMEOUT_MS}`,
  // a piece is small, whatever the statistics say: for a table that was never analyzed the planner would read it whole for every row
  'enable_seqscan = off',
  // src/source.ts reads times so
  "timezone = 'UTC'",
  "datestyle = 'ISO'",
]);

/**
 * Runs one statement that gives up where a lock is not to be had soon (55P03): it may hold others' locks while it waits. A simple query takes no parameters:
 * `$1` and so on become literals here, but not within quotes, where they are part of a name. `limited`: it also gives up where it takes too long itself (57014).
 */
export async function briefly<Row extends object>(
  sql: Sql,
  text: string,
  parameters: readonly (string | null)[],
  limited = false,
): Promise<Row[]> {
  const filled = text.replaceAll(/"[^"]*"|'[^']*'|\$(\d+)/g, (found, number?: string) => {
    if (number === undefined) return found;
    const value = parameters[Number(number) - 1];
    return value === null || value === undefined ? 'null' : quoteLiteral(value);
  });
  return await lastRows<Row>(sql, `${BRIEFLY}\n${filled}`, limited ? STATEMENT_TIMEOUT_MS : 0);
}

/**
 * Does it again while a lock is not to be had in time: waiting for it longer would make the owner's statements queue behind ours. Throws 55P03 once
 * `signal` aborts.
 */
export async function retryWhileLocked<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
  failed?: (attempt: number) => void,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (codeOf(error) !== LOCK_NOT_AVAILABLE || signal.aborted) throw error;
      failed?.(attempt);
      await delay(AGAIN_MS, undefined, { signal }).catch(() => {});
    }
  }
}

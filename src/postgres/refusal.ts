/**
 * Whose fault is it that PostgreSQL refused a statement which writes many rows: that of one of the rows, or of something that concerns every row?
 * A row's own fault must not keep the other rows; a fault of the whole must not be tried row by row.
 *
 * The SQLSTATE alone does not tell it: a trigger on `sms_log` may raise any. So each kind of error has a proof of its own:
 *
 *   values   data exceptions, constraints, an index row that is too large, what RAISE in PL/pgSQL raises by default, classes that no server raises:
 *            nothing but a row causes them, unless the statements of a trigger's own function run into them: a table without a partition for today and a
 *            sequence at its end fail every row alike
 *   raised   RAISE in PL/pgSQL, with a class of the server's: a row's fault if the statement succeeds without rows (else a statement-level trigger
 *            refuses everything)
 *   unclear  everything else that fails one statement: a row's fault if the same statement succeeds with another row; eight are tried
 *   whole    the session has ended, or time, locks, memory or disk were not sufficient: never a row's fault
 *
 * With that proof the rows are bisected until each refused row stands alone. The cause may change meanwhile, from one row's to everybody's: a row that failed
 * alone is refused once a proof has followed. After eight such rows without one, the rows ahead are asked for it; at the end, the statement without rows.
 */
import { codeOf, SmslogdError } from '../errors.ts';

type Fault = 'values' | 'raised' | 'unclear' | 'whole';

/** But 22023: a time zone that the server does not know fails every row alike. */
const OF_VALUES = /^(?!22023)(22|23|44|P0)...$|^54000$/;
/** Classes that PostgreSQL 15 to 18 raise: `errcode` can be set to any other. */
const OF_SERVER = /^(0|1|2|3|40|42|44|5|72|F0|HV|P0|XX)/;
const OF_RESOURCES = /^(40|53|57|58)/;
export const LOCK_NOT_AVAILABLE = '55P03';
/** The server's function behind RAISE; unlike the message it is not translated. */
const RAISE = 'exec_stmt_raise';
/** In every language that the server's messages have: the error came while code of a trigger ran. */
const IN_FUNCTION = /\bPL\/\w/;
export const UNIQUE_VIOLATION = '23505';
export const DIVISION_BY_ZERO = '22012';

/** Rows that are tried alone to find one that is accepted. */
const SAMPLE = 8;

export function faultOf(error: unknown): Fault {
  const code = codeOf(error);
  const { severity, routine, where } = Object(error) as { severity?: string; routine?: string; where?: string };
  // FATAL and PANIC end the session; what has no severity did not come from the server
  if (code === undefined || severity !== 'ERROR') return 'whole';
  const raised = routine === RAISE;
  const inFunction = IN_FUNCTION.test(where ?? '');
  if (!OF_SERVER.test(code) || (OF_VALUES.test(code) && (raised || !inFunction))) return 'values';
  if (raised) return 'raised';
  if (OF_RESOURCES.test(code)) return 'whole';
  // a lock that a trigger's own code wants may be wanted for that row alone
  return code === LOCK_NOT_AVAILABLE && !inFunction ? 'whole' : 'unclear';
}

/** What must succeed before a row is at fault: 1 is the statement without rows, 2 that with another row. */
const NEEDED = { values: 0, raised: 1, unclear: 2 } as const;

/**
 * Writes all rows by `write`, which must be safe to repeat and takes no rows, too. Calls `refuse` for each row whose own fault it is that it cannot be
 * written. Throws what concerns every row; some of them may be written then. `proven`: that the rows, and not everybody, are refused is known already.
 */
export async function writeAccepted<Row>(
  rows: readonly Row[],
  write: (rows: readonly Row[]) => Promise<void>,
  refuse: (row: Row, error: unknown) => Promise<void>,
  proven = false,
): Promise<void> {
  /** what is still to be written, the next rows last */
  let ahead: (readonly Row[])[] = [rows];
  /** what has succeeded */
  let proof = 0;
  /** rows that failed alone, without a proof since */
  let doubtful: { readonly row: Row; readonly error: unknown; readonly needed: number }[] = [];
  const failureOf = async (some: readonly Row[]): Promise<{ error: unknown; needed: number } | undefined> => {
    try {
      await write(some);
    } catch (error) {
      const fault = faultOf(error);
      if (fault === 'whole') throw error;
      return { error, needed: proven ? 0 : NEEDED[fault] };
    }
    const given = some.length > 0 ? 2 : 1;
    proof = Math.max(proof, given);
    const settled = doubtful.filter(({ needed }) => needed <= given);
    doubtful = doubtful.filter(({ needed }) => needed > given);
    for (const { row, error } of settled) await refuse(row, error);
    return undefined;
  };
  /** Tries single rows, spread evenly over those ahead, until one is accepted. */
  const findWitness = async (error: unknown): Promise<void> => {
    const left = ahead.flat();
    const step = Math.max(1, left.length / SAMPLE);
    for (let at = 0; at < left.length; at += step) {
      const witness = left[Math.floor(at)]!;
      if ((await failureOf([witness])) !== undefined) continue;
      ahead = ahead.map((some) => some.filter((row) => row !== witness)).filter((some) => some.length > 0);
      return;
    }
    throw error;
  };
  for (let some = ahead.pop(); some !== undefined; some = ahead.pop()) {
    const failure = await failureOf(some);
    if (failure === undefined) continue;
    const { error, needed } = failure;
    const [row] = some;
    if (row === undefined) throw error;
    const middle = Math.ceil(some.length / 2);
    if (some.length > 1) ahead.push(some.slice(middle), some.slice(0, middle));
    else if (needed === 0) await refuse(row, error);
    else doubtful.push({ row, error, needed });
    // the cause may be another one by now
    const stale = doubtful.length === SAMPLE && ahead.length > 0;
    const due = stale ? Math.max(...doubtful.map((each) => each.needed)) : needed;
    if (proof >= due && !stale) continue;
    if (due === 2) await findWitness(error);
    else if ((await failureOf([])) !== undefined) throw error;
  }
  if (doubtful.length === 0) return;
  const failure = await failureOf([]);
  if (failure !== undefined) throw failure.error;
  for (const { row, error } of doubtful) await refuse(row, error);
}

/** How the refusal of a row is told: its code is not what the same SQLSTATE of the server would mean. */
export function refusalOf(error: unknown, hint: string): SmslogdError {
  const why = codeOf(error) ?? 'unknown';
  return new SmslogdError('row_refused', `a constraint or a trigger of sms_log refuses to change an SMS (${why})`, {
    cause: error,
    hint,
  });
}

/**
 * What a check of `smslogd doctor` is. A check looks and never changes anything; it prints no secret and no SMS.
 * A check that needs what an earlier one did not find is skipped: one cause, one FAIL.
 */
import { toSmslogdError } from '../errors.ts';

/** `warn` is worth doing and does not fail the doctor. */
export type Level = 'ok' | 'warn' | 'FAIL' | 'skip';

export interface Finding {
  readonly level: Level;
  /** one sentence without a full stop */
  readonly says: string;
  /** what to run or to set, ready to be pasted */
  readonly fix?: string;
}

export interface Check<Context> {
  readonly name: string;
  /** absent where nothing is needed; else what is missing, or undefined where all is there */
  readonly lacks?: (found: Context) => string | undefined;
  readonly run: (found: Context) => Promise<Finding>;
}

export interface Result extends Finding {
  readonly name: string;
}

export const ok = (says: string): Finding => ({ level: 'ok', says });
export const warn = (says: string, fix?: string): Finding => ({
  level: 'warn',
  says,
  ...(fix === undefined ? {} : { fix }),
});
export const fail = (says: string, fix?: string): Finding => ({
  level: 'FAIL',
  says,
  ...(fix === undefined ? {} : { fix }),
});

/** Runs the checks one after the other and tells each result as it comes. A thrown failure becomes a FAIL with its hint. */
export async function runChecks<Context>(
  checks: readonly Check<Context>[],
  found: Context,
  tell: (result: Result) => void,
): Promise<readonly Result[]> {
  const results: Result[] = [];
  for (const check of checks) {
    const finding = await findingOf(check, found);
    const result = { name: check.name, ...finding };
    results.push(result);
    tell(result);
  }
  return results;
}

async function findingOf<Context>(check: Check<Context>, found: Context): Promise<Finding> {
  const lacking = check.lacks?.(found);
  if (lacking !== undefined) return { level: 'skip', says: `needs ${lacking}` };
  try {
    return await check.run(found);
  } catch (error) {
    const { message, hint } = toSmslogdError(error);
    return fail(message, hint);
  }
}

/** A result as lines: `ok    name: sentence`, and the fix under it. */
export function lineOf({ name, level, says, fix }: Result): string {
  const indent = ' '.repeat(6);
  const lines = [`${level.padEnd(indent.length)}${name}: ${says.replaceAll('\n', `\n${indent}`)}`];
  if (fix !== undefined) lines.push(`${indent}fix: ${fix.replaceAll('\n', `\n${indent}     `)}`);
  return lines.join('\n');
}

/** The last line: what fails, what is warned of, and what was not looked at. */
export function summaryOf(results: readonly Result[]): string {
  const of = (level: Level) => results.filter((each) => each.level === level).length;
  const [failed, warned, skipped] = [of('FAIL'), of('warn'), of('skip')];
  const parts = [
    ...(failed === 0 ? [] : [`${failed} of ${results.length} checks fail`]),
    ...(warned === 0 ? [] : [`${warned} ${warned === 1 ? 'warning' : 'warnings'}`]),
    ...(skipped === 0 ? [] : [`${skipped} skipped`]),
  ];
  return failed + warned === 0 ? ['all well', ...parts].join(', ') : parts.join(', ');
}

/** The words of a tool of the tests, such as `npm run chaos -- --seed 3`. */
import { readFileSync } from 'node:fs';
import { parseArgs, type ParseArgsConfig } from 'node:util';

const NUMBER = /^\d+(\.\d+)?$/;

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<T extends Options> = ReturnType<typeof parseArgs<{ options: T; allowPositionals: true }>>;

/** Ends the process with 2, as `smslogd` does for words that it does not know. */
export function refuseWords(what: string): never {
  process.stderr.write(`${what}\n--help says what there is.\n`);
  process.exit(2);
}

/**
 * The flags and the other words of the tool in `file`. `--help` prints the comment at the top of that file; an unknown flag, more than `others` other words
 * or no number for one of the flags `numbers` ends the process.
 */
export function wordsOf<const T extends Options>(
  file: string,
  options: T,
  { others = 0, numbers = [] }: { others?: number; numbers?: readonly (keyof T & string)[] } = {},
): Parsed<T> {
  const flags = process.argv.slice(2);
  if (flags.includes('--help') || flags.includes('-h')) {
    const [, comment = ''] = /^\/\*\*(.*?)\*\//s.exec(readFileSync(file, 'utf8')) ?? [];
    process.stdout.write(`${comment.replace(/^ ?\*? ?/gm, '').trim()}\n`);
    process.exit(0);
  }
  let parsed: Parsed<T>;
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    refuseWords((error as Error).message.split('. ')[0]!);
  }
  const { values, positionals } = parsed;
  const surplus = positionals[others];
  if (surplus !== undefined) refuseWords(`unknown: ${surplus}`);
  for (const name of numbers) {
    const value = (values as Record<string, string | undefined>)[name];
    if (value !== undefined && !NUMBER.test(value)) refuseWords(`--${name} takes a number, not ${value}`);
  }
  return parsed;
}

/** The words of a tool that takes `most` numbers and no flag. */
export function numbersOf(file: string, most: number): readonly number[] {
  return wordsOf(file, {}, { others: most }).positionals.map((word) =>
    NUMBER.test(word) ? Number(word) : refuseWords(`${word} is no number`),
  );
}

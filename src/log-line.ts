/** A line of the log for a terminal: the time, the level, the sentence and what goes with it; the hint under it. */
const COLOURS: Readonly<Record<string, number>> = { warn: 33, error: 31, fatal: 31, debug: 36, trace: 36 };
const PLAIN = new Set(['level', 'time', 'name', 'pid', 'msg', 'hint', 'runbook', 'stack']);

interface Line extends Readonly<Record<string, unknown>> {
  readonly level: string;
  readonly time: string;
  readonly msg?: string;
  readonly hint?: string;
  readonly runbook?: string;
  readonly stack?: readonly string[];
}

/** `line`: JSON as pino writes it, with its line break. */
export function readableLine(line: string, colour: boolean): string {
  const { level, time, msg, hint, runbook, stack, ...more } = JSON.parse(line) as Line;
  const name = level.toUpperCase().padEnd(5);
  const code = COLOURS[level];
  const values = Object.entries(more)
    .filter(([key]) => !PLAIN.has(key))
    .map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const indent = ' '.repeat(15);
  return [
    [
      new Date(time).toTimeString().slice(0, 8),
      colour && code !== undefined ? `\u001b[${code}m${name}\u001b[0m` : name,
      msg,
      ...values,
    ].join(' '),
    ...(hint === undefined ? [] : [`${indent}Try: ${hint} (${runbook})`]),
    ...(stack ?? []).map((frame) => indent + frame),
    '',
  ].join('\n');
}

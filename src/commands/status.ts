import { once } from 'node:events';
import { loadConfig } from '../settings.ts';
import { toSmslogdError, type SmslogdError } from '../errors.ts';
import { factsOf, readStatus, type Reading } from '../page/from-database.ts';
import type { StatusFacts } from '../page/facts.ts';
import { createSettling } from '../page/settling.ts';
import { inSight, statusText } from '../page/terminal.ts';
import { openDatabase } from '../postgres/pools.ts';
import { requireSchema } from '../schema/migrate.ts';
import { pause } from '../supervise.ts';
import { VERSION } from '../package.ts';
import type { Command, Io } from './command.ts';

const WATCH_MS = 5_000;
const CLEAR = '\u001b[H\u001b[2J\u001b[3J';

export const command: Command = {
  summary: 'is the SMS channel well? What the page says, straight from the database',
  details: [
    'Works also where no daemon runs; what only a daemon knows of itself (its lag in seconds, its clock against the',
    "gateway's) is not in it. Exits 0 where the channel is well, 1 where it is not or where that is not known.",
  ].join('\n'),
  flags: {
    watch: { type: 'boolean', about: `looks again every ${WATCH_MS / 1000} s until Ctrl-C` },
    json: {
      type: 'boolean',
      about: 'the facts as one JSON object, as /status.json has them; with --watch a line each',
    },
  },
  run: async ({ watch, json }, io) => {
    const config = loadConfig(io.env, ['database']);
    const sql = openDatabase(config, { max: 1, name: 'status' });
    const deps = { config, version: VERSION, settling: createSettling() };
    const look = async (): Promise<{ facts: StatusFacts; problem: SmslogdError | undefined }> => {
      let reading: Reading | undefined;
      let problem: SmslogdError | undefined;
      try {
        await requireSchema(sql);
        reading = await readStatus(sql, config);
      } catch (error) {
        problem = toSmslogdError(error);
        if (problem.reaction === 'fatal') throw problem;
      }
      return { facts: factsOf(reading, problem, deps), problem };
    };
    const stop = new AbortController();
    if (watch === true)
      for (const name of ['SIGINT', 'SIGTERM'])
        void once(process, name, { signal: stop.signal }).then(
          () => stop.abort(),
          () => {},
        );
    try {
      for (;;) {
        const { facts, problem } = await look();
        if (json === true) io.print(JSON.stringify(facts, null, watch === true ? 0 : 2));
        else show(facts, problem, watch === true, io);
        if (watch === true) await pause(WATCH_MS, stop.signal);
        if (watch !== true || stop.signal.aborted) return facts.verdict.level === 'well' ? 0 : 1;
      }
    } finally {
      stop.abort();
      await sql.end({ timeout: 1 });
    }
  },
};

function show(
  facts: StatusFacts,
  problem: SmslogdError | undefined,
  again: boolean,
  { env, print, stdoutIsTerminal, size }: Io,
): void {
  const colour = stdoutIsTerminal && (env['NO_COLOR'] ?? '') === '';
  const lines = [...statusText(facts, colour), ...(problem === undefined ? [] : ['', `Try: ${problem.hint}`])];
  if (again) lines.push('', 'Ctrl-C ends it');
  const shown = again && size !== undefined ? inSight(lines, size().rows) : lines;
  print(`${again && stdoutIsTerminal ? CLEAR : ''}${shown.join('\n')}`);
}

import { loadConfig, type Config } from '../settings.ts';
import { openDatabase, type Sql } from '../postgres/pools.ts';
import { SmslogdError } from '../errors.ts';
import { audit, type Audit } from '../reconcile/audit.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { createStore } from '../mirror/store.ts';
import { requireSchema } from '../schema/migrate.ts';
import { requireTimezones } from '../timezones.ts';
import { queryOfPool } from '../schema/objects.ts';
import { describeSource, type Source } from '../source.ts';
import type { Command } from './command.ts';

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
/** 2,000 years: no row is older, and PostgreSQL has such a time. */
const OLDEST_SECONDS = 63_072_000_000;
const PATIENCE_MS = 30_000;
const REPAIR_CHUNK = 5_000;
const PROGRESS_MS = 5_000;

const MEANINGS: Readonly<Record<keyof Audit, string>> = {
  source: 'source rows that the log must have',
  log: 'mirrored rows in the log',
  missing: 'source rows that the log lacks',
  refused: 'of these refused by a constraint or a trigger of the log, see smslogd.sms_refused',
  incomplete: 'rows whose gateway id the log lacks',
  doubled: 'rows that the log has more than once',
  differing: 'rows whose phone number, text or time differs',
  orphaned: 'logged rows without a source row, newer than the oldest one',
  settled: 'the mirror had passed the moment of the look',
};

export const command: Command = {
  summary: 'compares the log with the source: missing and doubled rows, rows without a source row',
  details: [
    'Exits 0 if nothing is missing or doubled, else 1. Rows that SNAPSHOT=never or the retention left out are not expected.',
    'It may run beside the daemon at any time: a row that is merely on its way is waited for, up to half a minute.',
  ].join('\n'),
  flags: {
    since: { type: 'string', value: 'AGE', about: 'only rows of the last 90m, 24h or 7d; default: all' },
    repair: { type: 'boolean', about: 'fills what is missing or incomplete first, of all rows' },
    json: { type: 'boolean', about: 'the counts as one JSON object' },
  },
  run: async (flags, { env, print }) => {
    const config = loadConfig(env, ['database']);
    const sinceSeconds = flags['since'] === undefined ? undefined : readAge(String(flags['since']));
    const json = flags['json'] === true;
    const say = progress(json ? () => {} : print);
    const sql = openDatabase(config, { max: 2, name: 'verify' });
    try {
      await requireSchema(sql);
      await requireTimezones(queryOfPool(sql), config);
      const source = await describeSource(sql, config);
      const repaired = flags['repair'] === true ? await repair(sql, config, source, say) : undefined;
      const { signal } = new AbortController();
      const counts = await audit(
        sql,
        config,
        source,
        {
          sinceSeconds,
          mirrorTimeoutMs: PATIENCE_MS,
          progress: (rows, table) =>
            say(table === 'source' ? `${rows} source rows compared` : `${rows} rows of the log looked up`),
        },
        signal,
      );
      if (json) print(JSON.stringify({ ...counts, ...(repaired === undefined ? {} : { repaired }) }));
      else {
        if (repaired !== undefined) print(`repaired   ${String(repaired).padStart(10)}  rows written`);
        for (const [name, meaning] of Object.entries(MEANINGS)) {
          print(`${name.padEnd(10)} ${String(counts[name as keyof Audit]).padStart(10)}  ${meaning}`);
        }
      }
      return counts.missing === 0 && counts.doubled === 0 ? 0 : 1;
    } finally {
      await sql.end({ timeout: 1 });
    }
  },
};

/** Writes what the log lacks, as the daemon's reconcile does; returns the number of rows. */
async function repair(sql: Sql, config: Config, source: Source, say: (line: string) => void): Promise<number> {
  const store = createStore(sql, config);
  const never = new AbortController().signal;
  let after: string | undefined;
  let looked = 0;
  let written = 0;
  for (;;) {
    const chunk = await retryWhileLocked(never, () => store.reconcileChunk(source, after, REPAIR_CHUNK));
    looked += chunk.scanned;
    written += chunk.inserted + chunk.completed;
    if (chunk.last === undefined) {
      await store.forgetRefused();
      return written;
    }
    after = chunk.last;
    say(`${looked} source rows looked at, ${written} written`);
  }
}

/** Lets a line through every few seconds. */
function progress(print: (line: string) => void): (line: string) => void {
  let said = performance.now();
  return (line) => {
    if (performance.now() - said < PROGRESS_MS) return;
    said = performance.now();
    print(line);
  };
}

/** `90m`, `24h`, `7d` → seconds. */
function readAge(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  const unit = UNITS[match?.[2] ?? ''];
  if (match === null || unit === undefined) {
    throw new SmslogdError('usage', '--since must be a number with a unit', {
      hint: 'For example --since 24h, with s, m, h or d.',
    });
  }
  return Math.min(Number(match[1]) * unit, OLDEST_SECONDS);
}

import { loadConfig } from '../config.ts';
import { openDatabase } from '../db.ts';
import { SmslogdError } from '../errors.ts';
import { audit } from '../mirror/audit.ts';
import { requireSchema } from '../schema.ts';
import { describeSource } from '../source.ts';
import type { Command } from './command.ts';

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
const PATIENCE_MS = 30_000;

export const command: Command = {
  summary: 'audits the log against the source: missing, doubled, without a source row',
  details:
    'Exits 0 if nothing is missing or doubled, else 1. Rows that SNAPSHOT=never or the retention left out are not expected.',
  flags: {
    since: { type: 'string', value: 'AGE', about: 'only rows of the last 90m, 24h or 7d; default: all' },
    json: { type: 'boolean', about: 'the counts as one JSON object' },
  },
  run: async (flags, { env, print }) => {
    const config = loadConfig(env, ['database']);
    const sinceSeconds = flags['since'] === undefined ? undefined : readAge(String(flags['since']));
    const sql = openDatabase(config, { max: 2, name: 'verify' });
    try {
      await requireSchema(sql);
      const source = await describeSource(sql, config);
      const { signal } = new AbortController();
      const counts = await audit(sql, config, source, { sinceSeconds, patienceMs: PATIENCE_MS }, signal);
      if (flags['json'] === true) print(JSON.stringify(counts));
      else for (const [name, count] of Object.entries(counts)) print(`${name.padEnd(9)} ${String(count).padStart(12)}`);
      return counts.missing === 0 && counts.doubled === 0 ? 0 : 1;
    } finally {
      await sql.end({ timeout: 1 });
    }
  },
};

/** `90m`, `24h`, `7d` → seconds. */
function readAge(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  const unit = UNITS[match?.[2] ?? ''];
  if (match === null || unit === undefined) {
    throw new SmslogdError('usage', '--since must be a number with a unit', {
      hint: 'For example --since 24h, with s, m, h or d.',
    });
  }
  return Number(match[1]) * unit;
}

/** Status words that no table knows: such an SMS is stored as Unknown; it is counted, and each word is logged once. */
import { SmslogdError } from './errors.ts';
import { logProblem, type Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import { statusOfSource } from './source.ts';

/** At most so many different words are logged; all are counted. */
const MOST_LOGGED = 20;
/** Characters of a word that are read: more than any known word has. */
const LONGEST = 100;
const logged = new WeakMap<Log, Set<string>>();

interface UnknownWord {
  readonly by: 'gateway' | 'source';
  /** one of the SMS */
  readonly id: string;
  /** as it may be logged */
  readonly word: string;
  /** how many SMS have it */
  readonly sms?: number;
}

export interface Telling {
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors' | 'unknownWords'>;
}

export function tellOfWord({ log, metrics }: Telling, { by, id, word, sms = 1 }: UnknownWord): void {
  metrics.unknownWords.inc(sms);
  metrics.errors.inc({ code: 'unknown_status_word' }, sms);
  const words = logged.get(log) ?? new Set<string>();
  if (words.has(`${by} ${word}`) || words.size >= MOST_LOGGED) return;
  logged.set(log, words.add(`${by} ${word}`));
  const shown = word === '' ? 'that is not a plain word' : `"${word}"`;
  logProblem(log, 'warn', new SmslogdError('unknown_status_word', `the ${by} used the status word ${shown}`), { id });
}

/** SQL: a source's status word, as far as it is read. */
export const wordSql = (word: string) => `left(${word}, ${LONGEST})`;

/** SQL for the words of `rows` (id, gateway_status, word) that are stored as Unknown, as the next function takes them. */
export function unknownWordsSql(rows: string): string {
  return `(select coalesce(json_agg(w), '[]')::text
             from (select ${wordSql('r.word')} as word, count(*) as sms, min(r.id::text) as id from ${rows} r where r.gateway_status = 'Unknown' group by 1) w)`;
}

export function tellOfSourceWords(telling: Telling, found: string): void {
  for (const { word, sms, id } of JSON.parse(found) as { word: string | null; sms: number; id: string }[])
    tellOfSourceWord(telling, id, word, sms);
}

/** Tells of a word where no table knows it: the source may say Unknown itself. */
export function tellOfSourceWord(telling: Telling, id: string, word: string | null, sms = 1): void {
  const { unknownWord } = statusOfSource('', word);
  if (unknownWord !== undefined) tellOfWord(telling, { by: 'source', id, word: unknownWord, sms });
}

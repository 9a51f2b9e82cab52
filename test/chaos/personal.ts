/** Whether a line, a metric or an answer shows what nobody may see: numbers, texts, gateway ids, credentials. Everything that the campaign makes up is recognisable. */
import { PASSWORD } from '../support/postgres.ts';
import { GATEWAY, type Stage } from './stage.ts';

const WORDS = ['Код авторизації', 'A text, ', PASSWORD, GATEWAY.login, GATEWAY.password];

/** What of it the text shows, in words that repeat none of it; undefined: nothing. */
export function personalIn(text: string, stage: Pick<Stage, 'gateway'>): string | undefined {
  // not a part of a longer number, as of a measured time
  if (/(?<![\d.])38000\d{7}(?!\d)/.test(text)) return 'a phone number';
  const word = WORDS.findIndex((each) => text.includes(each));
  if (word !== -1) return ['the text of a verification', 'a text', 'a password', 'the login', 'a password'][word];
  for (const [digits] of text.matchAll(/(?<![\d.])\d{10,25}(?![\d.])/g))
    if (stage.gateway.fate(digits) !== undefined) return 'a gateway id';
  return undefined;
}

import { readFileSync } from 'node:fs';

/** Where package.json, sql/, migrations/ and docs/ stand: the folder above src/, and above dist/, in which all is flat. */
export const ROOT = new URL('../', import.meta.url);

export const VERSION: string = (JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8')) as { version: string })
  .version;

/** Reads the files of `NAME_FILE`, in one way for all settings. */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';

/**
 * The value in a file: text in UTF-8, without a byte order mark and without the line breaks at its end. Of a secret, blanks at the end are no
 * part either: editors and shells leave them, and nobody sees them. Throws where the file cannot be read or holds no value: who names a file does not mean
 * the default. The error holds nothing of its content.
 */
export function readValueFile(path: string, { secret }: { secret: boolean }): string {
  // the decoder takes the byte order mark away
  const text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  const value = text.replace(secret ? /[ \t\r\n]+$/ : /[\r\n]+$/, '');
  if (value === '') throw Object.assign(new Error('empty'), { code: 'EMPTY' });
  return value;
}

/** Why a file that a setting names cannot be read, in words; undefined: it can. */
export function whyUnreadable(path: string): string | undefined {
  try {
    accessSync(path, constants.R_OK);
    return statSync(path).isDirectory() ? REASONS['EISDIR'] : undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a directory',
  ENAMETOOLONG: 'the name is too long',
  EMPTY: 'it is empty',
  ERR_ENCODING_INVALID_ENCODED_DATA: 'it is not UTF-8 text',
};

/** Why reading a file failed. */
export function reasonOf(error: unknown): string {
  const { code = 'unknown' } = error as { code?: string };
  return REASONS[code] ?? code;
}

/** A path to be shown in a message. What does not look like one may be the secret itself, in the wrong variable. */
export function shownPath(path: string): string {
  return /^(\.{0,2}|~)\/[\w./ @+-]*$/.test(path) ? path : 'the file';
}

/** Reads the files of `NAME_FILE`, in one way for all settings. */
import { accessSync, constants, readFileSync } from 'node:fs';

/**
 * The value in a file: text in UTF-8, without a byte order mark and without the line breaks at its end. Of a secret, blanks at the end are no
 * part either: editors and shells leave them, and nobody sees them. Throws where the file cannot be read; the error holds nothing of its content.
 */
export function readValueFile(path: string, { secret }: { secret: boolean }): string {
  // the decoder takes the byte order mark away
  const text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  return text.replace(secret ? /[ \t\r\n]+$/ : /[\r\n]+$/, '');
}

/** True where a file that a setting names can be read. */
export function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

declare module 'pgpass/lib/helper.js' {
  import type { Readable } from 'node:stream';

  /** The password of the first line that fits; undefined: none does, or the file cannot be read. */
  export function getPassword(
    connection: { host: string; port: number; database: string; user: string },
    file: Readable,
    told: (password: string | undefined) => void,
  ): void;
}

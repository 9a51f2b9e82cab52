/** A write-ahead log position: a 64-bit byte offset. Never a float, never compared as text. */
export type Lsn = bigint & { readonly unit: 'lsn' };

export const ZERO_LSN = 0n as Lsn;

const FORM = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i;

/** Reads PostgreSQL's `XXXXXXXX/XXXXXXXX` form. Throws a RangeError for anything else. */
export function parseLsn(text: string): Lsn {
  const match = FORM.exec(text);
  if (match === null) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`);
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** Writes an LSN the way PostgreSQL does: two hexadecimal halves without leading zeros. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

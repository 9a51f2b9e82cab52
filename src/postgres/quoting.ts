/** Names, texts, arrays and settings as SQL. */

/** The statements that make `settings`, such as `jit = off`, hold for one transaction. */
export function setLocal(settings: readonly string[]): string {
  return settings.map((setting) => `set local ${setting};`).join('\n');
}

/** Quotes a name for SQL. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Quotes a text for SQL, for the few statements that take no parameters. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Splits `schema.table` (either part may be "quoted") and quotes both parts; without a schema it is public. */
export function quoteTable(table: string): string {
  const parts = [...table.matchAll(/"((?:[^"]|"")+)"|([^".]+)/g)].map((m) => m[1]?.replaceAll('""', '"') ?? m[2] ?? '');
  const [schema, name] = parts.length > 1 ? [parts[0] ?? '', parts.slice(1).join('.')] : ['public', parts[0] ?? ''];
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
}

/** Writes values as one PostgreSQL array literal: sent as one text parameter, it is the cheapest way to bring many rows. */
export function arrayLiteral(values: readonly (string | number | null)[]): string {
  if (values.length === 0) return '{}';
  // one look at all of them together; the words of an array are quoted, so that no value is taken for NULL
  if (!values.includes(null) && !SPECIAL.test(values.join(''))) return `{"${values.join('","')}"}`;
  const words = values.map((value) => (value === null ? 'NULL' : `"${String(value).replace(/["\\]/g, '\\$&')}"`));
  return `{${words.join(',')}}`;
}

/** What needs an escape within quotes. */
const SPECIAL = /["\\]/;

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

/** SQL: an instant as text that each session reads as the same one. What a cast writes, such as IST, may be the word of several zones. */
export function instantText(instant: string): string {
  return `(to_json(${instant}) #>> '{}')`;
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** Splits `schema.table`, of which either part may be "quoted"; without a schema it is public. Undefined for what is neither, as three parts. */
export function splitTable(text: string): TableName | undefined {
  const [, schema = 'public', name] = /^(?:("(?:[^"]|"")+"|[^".]+)\.)?("(?:[^"]|"")+"|[^".]+)$/u.exec(text) ?? [];
  return name === undefined ? undefined : { schema: plain(schema), name: plain(name) };
}

const plain = (part: string) => (part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : part);

/** The name for SQL. */
export function quoteTable({ schema, name }: TableName): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
}

/** Puts SQL in for words such as `:source`. */
export function fill(sql: string, words: Readonly<Record<string, string>>): string {
  return Object.entries(words).reduce((filled, [word, value]) => filled.replaceAll(word, () => value), sql);
}

/** A text for SQL within a function's body: no dollar sign ends the body, no backslash depends on the session that runs it. */
export function quoteInBody(text: string): string {
  return quoteLiteral(text).replaceAll(/[$\\]/g, (sign) => `' || chr(${sign.charCodeAt(0)}) || '`);
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

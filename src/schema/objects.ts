/**
 * What stands in sql/: functions, triggers, views. `migrate` applies the files as often as one likes, when they are others than those that were
 * applied, or when anything of theirs was dropped or altered since then (sql/objects.sql says what).
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../package.ts';
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { fill, quoteInBody, quoteLiteral } from '../postgres/quoting.ts';
import type { Source } from '../source.ts';

const FOLDER = fileURLToPath(new URL('sql/', ROOT));

/** In the order in which they need each other. */
const FILES = [
  'objects',
  'statuses',
  'calendar',
  'counting',
  'queue',
  'writers',
  'retention',
  'counters',
  'delivery',
  'traffic',
  'conversion',
  'columns',
  'callers',
];

/** Runs one statement and gives its rows, of whichever client. */
export type Query = <Row extends object>(text: string) => Promise<readonly Row[]>;

/** The same of a pool. */
export function queryOfPool(sql: Sql): Query {
  return async <Row extends object>(text: string) => await sql.unsafe<Row[]>(text);
}

export interface SqlFile {
  readonly name: string;
  readonly text: string;
}

/** A file of sql/ as it stands in the package. */
export function sqlFile(name: string): string {
  return readFileSync(`${FOLDER}${name}.sql`, 'utf8');
}

/** The names of all functions or views that the files make. */
export function madeNames(kind: 'function' | 'view'): string[] {
  const texts = FILES.map(sqlFile).join('\n');
  return [
    ...new Set(
      [...texts.matchAll(/^create or replace (\w+) ([a-z_.]+)/gm)].flatMap(([, what, name = '']) =>
        what === kind ? name : [],
      ),
    ),
  ];
}

/** The files to apply, with what the settings say put in. */
export function filesToApply(config: Config, source: Source): SqlFile[] {
  return FILES.map((name) => ({
    name: `sql/${name}.sql`,
    text: fill(sqlFile(name), {
      ':source': quoteInBody(source.table),
      ':timezone': quoteInBody(config.SOURCE_TIMEZONE),
    }),
  }));
}

export interface Altered {
  /** such as `view verification.sms_backlog` */
  readonly object: string;
  /** else it is there and is another */
  readonly missing: boolean;
}

/** What somebody dropped or changed since `migrate` made it; undefined where no migrate has finished here. */
export async function alteredObjects(query: Query): Promise<readonly Altered[] | undefined> {
  const [there] = await query<{ table: boolean; look: boolean }>(
    `select to_regclass('smslogd.installed') is not null as table,
            to_regprocedure('smslogd.altered_objects()') is not null and to_regprocedure('smslogd.objects()') is not null as look`,
  );
  if (there?.table !== true) return undefined;
  if (!there.look) return [{ object: 'function smslogd.objects()', missing: true }];
  return await query<Altered>('select object, missing from smslogd.altered_objects()');
}

/** The files that are not those that were applied last. */
export async function changedFiles(query: Query, files: readonly SqlFile[]): Promise<readonly SqlFile[]> {
  const [there] = await query(`select where to_regclass('smslogd.installed') is not null`);
  if (there === undefined) return files;
  const rows = await query<{ object: string; state: string }>(
    `select object, state from smslogd.installed where object like 'file %'`,
  );
  const applied = new Map(rows.map(({ object, state }) => [object, state]));
  return files.filter((file) => applied.get(`file ${file.name}`) !== fingerprint(file));
}

/** True where views cannot be compared, as after a restore or an upgrade of PostgreSQL, until `migrate` has noted them again. */
export async function isElsewhere(query: Query): Promise<boolean> {
  const rows = await query(
    `select from smslogd.installed join smslogd.objects() using (object, state) where object = 'server'`,
  );
  return rows.length === 0;
}

/** The statements that note what is there now as what must be. */
export function noteInstalled(files: readonly SqlFile[]): string[] {
  const values = files.map((file) => `(${quoteLiteral(`file ${file.name}`)}, ${quoteLiteral(fingerprint(file))})`);
  return [
    `delete from smslogd.installed where object !~ '^role '`,
    `insert into smslogd.installed select * from smslogd.objects() union all values ${values.join(', ')}`,
  ];
}

function fingerprint({ text }: SqlFile): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

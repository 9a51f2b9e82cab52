/** What `migrate` does after the migrations: the files of sql/, the settings, the publication, the grants; only what is not so already. */
import type { Client } from 'pg';
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { changedFiles, filesToApply, isElsewhere, noteInstalled, type Altered, type Query } from './objects.ts';
import { describePublication, publicationInTheWay, publicationStatements } from './publication.ts';
import { SmslogdError } from '../errors.ts';
import type { Source } from '../source.ts';

/** A connection that makes and changes, one that looks, and what the source is like. */
export interface Session {
  readonly client: Client;
  readonly sql: Sql;
  readonly source: Source;
}

export function queryOf(client: Client): Query {
  return async (text) => (await client.query(text)).rows as never;
}

export interface Step {
  /** absent: nothing to tell */
  readonly name?: string;
  /** true: it is told where it wrote rows alone */
  readonly mayChangeNothing?: true;
  readonly statements: string[];
}

/** What follows from the settings and from the files in sql/; only what is not so already. */
export async function computedSteps(
  config: Config,
  { client, sql, source }: Session,
  altered: readonly Altered[] | undefined,
): Promise<Step[]> {
  const query = queryOf(client);
  const files = filesToApply(config, source);
  const changed = await changedFiles(query, files);
  const steps: Step[] = [];
  if (changed.length > 0 || altered?.length !== 0 || (await isElsewhere(query))) {
    // each on its own, so that a trigger's lock on the log is held for a moment
    for (const file of files)
      steps.push({ ...(changed.includes(file) ? { name: file.name } : {}), statements: [file.text] });
    steps.push({ statements: [...catchUp(altered), ...noteInstalled(files)] });
    // so that plans are right before autovacuum comes by
    steps.push({ statements: [ANALYZE] });
  }
  // else the daemon would take it for one whose checkpoint somebody deleted
  if (altered === undefined)
    steps.push({
      name: 'the log that was there is taken',
      mayChangeNothing: true,
      statements: [
        `insert into smslogd.checkpoint (slot_name, reconcile_due) select ${quoteLiteral(config.SLOT_NAME)}, ${quoteLiteral(FIRST_START)}
          where exists (select from verification.sms_log) on conflict do nothing`,
      ],
    });
  steps.push({
    name: 'settings',
    mayChangeNothing: true,
    statements: [
      restoredSettings(config, source),
      `update smslogd.settings set retention_days = ${config.RETENTION_DAYS} where retention_days <> ${config.RETENTION_DAYS}`,
      `update smslogd.settings set report_timezone = ${quoteLiteral(config.REPORT_TIMEZONE)} where report_timezone <> ${quoteLiteral(config.REPORT_TIMEZONE)}`,
      `update smslogd.checkpoint set removed_at = null where slot_name = ${quoteLiteral(config.SLOT_NAME)} and removed_at is not null`,
    ],
  });
  const now = await describePublication(sql, config, source);
  const publication = publicationStatements(config, source, now, true);
  const first = publicationInTheWay(config, now);
  if (publication.length > 0 && first !== undefined)
    throw new SmslogdError('privilege_missing', `the publication ${config.PUBLICATION_NAME} is another role's`, {
      hint: `Run: ${first}`,
    });
  if (publication.length > 0) steps.push({ name: `publication ${config.PUBLICATION_NAME}`, statements: publication });
  return steps;
}

/** Where somebody deleted the row: what migrate and the daemons wrote into it. Hours of which retention may have removed rows stay as they were counted. */
function restoredSettings(config: Config, { tracksGateway }: Source): string {
  const { RETENTION_DAYS: days, SMS_STATUSES_EXPIRATION: life, SMS_STATUSES_GIVE_UP: giveUp } = config;
  const frozen = days > 0 ? `date_trunc('hour', now() - ${days} * interval '1 day')` : `'-infinity'`;
  // as long as any SMS is counted as untracked
  const untracked = `select max(newest) from smslogd.sms_hourly where status = 'untracked' and newest <= now()`;
  const since = tracksGateway ? `coalesce((${untracked}) + interval '1 microsecond', '-infinity')` : `'infinity'`;
  return `insert into smslogd.settings (life, give_up, tracked_since, frozen_before)
          values (make_interval(secs => ${life * 60}), make_interval(secs => ${giveUp * 60}), ${since}, ${frozen}) on conflict do nothing`;
}

/** Why a reconcile is due where there was no daemon yet. */
export const FIRST_START = 'first start';

const ANALYZE = `do $$
declare
  each regclass;
begin
  for each in select oid from pg_class where relkind = 'r' and (relnamespace = 'smslogd'::regnamespace or oid = 'verification.sms_log'::regclass) loop
    execute format('analyze %s', each);
  end loop;
end $$`;

/** What was written while no trigger noted it, or before smslogd was here, is counted again. */
function catchUp(altered: readonly Altered[] | undefined): string[] {
  if (altered?.some(({ object }) => object.startsWith('trigger ')) === false) return [];
  return [
    `insert into smslogd.changed_hour
     select distinct smslogd.hour_of(inserted_at) from verification.sms_log union select distinct hour from smslogd.sms_hourly`,
  ];
}

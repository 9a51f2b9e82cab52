/** The check that PostgreSQL takes the time zones of the settings for what they are meant to be. */
import { queryOfPool } from '../schema/objects.ts';
import { requireTimezones } from '../timezones.ts';
import { ok, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

export const timezoneCheck: Check<Found> = needing('time zones', ['config', 'sql'], async ({ config, sql }) => {
  await requireTimezones(queryOfPool(sql), config);
  return ok(`source timestamps in ${config.SOURCE_TIMEZONE}, days in ${config.REPORT_TIMEZONE}`);
});

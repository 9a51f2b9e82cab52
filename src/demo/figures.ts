/** The mission's figures for the report, from the view that DBAs use. */
import type { Sql } from '../postgres/pools.ts';
import type { Figures, FiguresByType } from './report.ts';
import type { DemoType } from './sms.ts';

/** Today's and yesterday's up to the same time. */
export async function readFigures(sql: Sql): Promise<FiguresByType> {
  const rows = await sql<({ period: string; type: string } & Figures)[]>`
    select period, type, total::float8 as sms, success_ratio::float8 as success, undelivered::float8, le_2m::float8 as "le2m", m2_5::float8 as "m2to5",
           m5_30::float8 as "m5to30", gt_30m::float8 as "gt30m", open::float8, extract(epoch from oldest_open_age)::float8 as "oldestOpenSeconds",
           known_ratio::float8 as known, on_time_ratio::float8 as "onTime"
      from verification.sms_today_vs_yesterday`;
  const find = (type: DemoType, period: string) => rows.find((row) => row.type === type && row.period === period);
  const both = (type: DemoType) => ({ today: find(type, 'today'), yesterday: find(type, 'yesterday_same_time') });
  return { verification: both('verification'), medication_request: both('medication_request') };
}

/** A daemon's sessions as the server sees them, those too that it has not ended yet. */
import { connect } from './postgres.ts';

/** Looks for a fifth of a second every 2 ms: one look after the other, each a statement, would take a whole core. */
const LOOK = `
create function pg_temp.most(pattern text) returns text[] language plpgsql as $$
declare
  most text[] := '{}';
  seen text[];
begin
  for look in 1 .. 100 loop
    perform pg_stat_clear_snapshot();
    select array_agg(application_name order by application_name) into seen from pg_stat_activity where application_name like pattern;
    if cardinality(seen) > cardinality(most) then most := seen; end if;
    perform pg_sleep(0.002);
  end loop;
  return most;
end $$`;

/** The names of the sessions that are like `pattern` when they were most while `work` was done. `url`: a superuser's. */
export async function mostSessions(
  url: string,
  pattern: string,
  work: () => Promise<void>,
): Promise<readonly string[]> {
  const sql = connect(url, { max: 1, fetch_types: false });
  await sql.unsafe(LOOK);
  const over = new AbortController();
  let most: readonly string[] = [];
  const watching = (async () => {
    while (!over.signal.aborted) {
      const [row] = await sql<{ names: readonly string[] }[]>`select to_json(pg_temp.most(${pattern})) as names`;
      if (row!.names.length > most.length) most = row!.names;
    }
  })();
  try {
    await Promise.race([work(), watching]);
  } finally {
    over.abort();
    await watching;
    await sql.end();
  }
  return most;
}

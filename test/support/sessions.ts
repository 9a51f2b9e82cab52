/** A daemon's sessions as the server sees them, those too that it has not ended yet. */
import { connect } from './postgres.ts';

/** The names of the sessions that are like `pattern` when they were most, looked at as fast as the server answers while `work` is done. `url`: a superuser's. */
export async function mostSessions(
  url: string,
  pattern: string,
  work: () => Promise<void>,
): Promise<readonly string[]> {
  const sql = connect(url, { max: 1, fetch_types: false });
  const over = new AbortController();
  let most: readonly string[] = [];
  const watching = (async () => {
    while (!over.signal.aborted) {
      const now = await sql<{ name: string }[]>`
        select application_name as name from pg_stat_activity where application_name like ${pattern} order by 1`;
      if (now.length > most.length) most = now.map(({ name }) => name);
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

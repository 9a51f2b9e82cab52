/**
 * One session of a service, of a client that is not the product's: what is asked for waits for its turn, and a session that was lost is made again by the next one.
 * (postgres.js ends the process where a transaction's session is lost.)
 */
import { Client } from 'pg';

type Rows = readonly Record<string, unknown>[];
export type Query = (text: string, values?: readonly unknown[]) => Promise<Rows>;

export interface Session {
  /** one statement, or several without values */
  readonly query: Query;
  /** rolls back where `work` throws */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>;
  end(): Promise<void>;
}

const on =
  (one: Client): Query =>
  async (text, values) => {
    const result = (await one.query(text, values as unknown[])) as { rows?: Rows };
    return result.rows ?? [];
  };

export function openSession(address: string, options = ''): Session {
  let client: Client | undefined;
  let last: Promise<unknown> = Promise.resolve();
  const lose = () => {
    const lost = client;
    client = undefined;
    lost?.end().catch(() => {});
  };
  const connected = async () => {
    if (client !== undefined) return client;
    const made = new Client({ connectionString: address, application_name: 'chaos', options });
    made.on('error', () => {
      if (client === made) client = undefined;
    });
    await made.connect();
    return (client = made);
  };
  const turn = async <T>(work: () => Promise<T>): Promise<T> => {
    const before = last;
    const mine = before.then(work);
    last = mine.catch(() => {});
    return await mine;
  };
  return {
    query: (text, values) => turn(async () => on(await connected())(text, values)),
    transaction: (work) =>
      turn(async () => {
        // another session must not take the rest of it: its commit would succeed, with nothing in it
        const one = await connected();
        const query = on(one);
        await query('begin');
        try {
          const result = await work(query);
          await query('commit');
          return result;
        } catch (error) {
          await one.query('rollback').catch(lose);
          throw error;
        }
      }),
    end: async () => {
      await last;
      await client?.end().catch(() => {});
    },
  };
}

import { Pool } from 'pg';
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';
import {
  DatabaseSetup,
  initializeReplicationMessageListener,
  type GeneralMessageHandler,
} from 'pg-transactional-outbox';
import { until } from '../support/database.ts';
import { mirrorBacklog, type Backlog } from './backlog.ts';
import { singleRows } from './catch-up.ts';
import type { Bench, Figures, Stage } from './stage.ts';

/** Where the peers write: the log's columns, key and indexes, without smslogd's triggers. */
const PEER_LOG = `create table public.peer_log (like verification.sms_log including all)`;
const WRITE = `insert into public.peer_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
               values ($1, $2, 'verification', 'text ' || $3, $4, $5, $6) on conflict (id) do nothing`;

export const bench: Bench = {
  name: 'peer',
  measures:
    'the same catch-up by what there is on npm: one write for each row; the peers read only the first rows of the backlog',
  comparisons: [
    {
      title: 'beside pg-transactional-outbox',
      figure: 'rate',
      unit: 'rows/s',
      against: 'outbox',
      reference: "pg-transactional-outbox's listener",
      target: { ratio: 10, better: 'more' },
    },
    {
      title: 'beside pg-logical-replication',
      figure: 'rate',
      unit: 'rows/s',
      against: 'library',
      reference: "pg-logical-replication's service",
      target: { ratio: 10, better: 'more' },
    },
  ],
  run: async (stage) => {
    const backlog = await singleRows(stage);
    await backlog.db.sql.unsafe(PEER_LOG);
    const rows = stage.pick({ tiny: 50, short: 1_000, full: 20_000 });
    const outbox = await makeOutbox(backlog, rows);
    await stage.alternate({
      smslogd: () => mirrorBacklog(stage, backlog),
      library: () => libraryService(backlog, rows),
      outbox: () => outboxListener(stage, backlog, { ...outbox, rows }),
    });
  },
};

/** The service as its README shows it, with its flow control: each row is written before the next one is read. */
async function libraryService(backlog: Backlog, rows: number): Promise<Figures> {
  const slot = await backlog.slot();
  const client = { connectionString: backlog.db.url };
  const pool = new Pool({ ...client, max: 4 });
  const service = new LogicalReplicationService(client, { flowControl: { enabled: true } });
  const arrived = arrivals(rows);
  service.on('error', () => {});
  service.on('data', async (_lsn: string, message: { tag: string; new?: Record<string, unknown> }) => {
    if (message.tag !== 'insert' || message.new === undefined) return;
    const { id, phone_number, code, gateway_id, gateway_status, inserted_at } = message.new;
    await pool.query(WRITE, [id, phone_number, String(code), gateway_id, gateway_status, inserted_at]);
    arrived.one();
  });
  const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['smslogd'] });
  const subscribed = service.subscribe(plugin, slot).catch(() => {});
  const rate = await arrived.rate();
  await service.destroy();
  await subscribed;
  await pool.end();
  await backlog.db.sql`truncate public.peer_log`;
  await backlog.drop(slot);
  return { rate };
}

/** The outbox table of pg-transactional-outbox with the same SMS as messages, one transaction each, and a slot before them. */
async function makeOutbox(backlog: Backlog, rows: number): Promise<{ slot: string }> {
  const { sql, name } = backlog.db;
  const slot = `outbox_${name}`;
  const names = {
    outboxOrInbox: 'outbox',
    database: name,
    schema: 'public',
    table: 'outbox',
    listenerRole: 'postgres',
    publication: 'outbox',
    replicationSlot: slot,
  } as const;
  await sql.unsafe(DatabaseSetup.dropAndCreateTable(names));
  await sql`create publication outbox for table public.outbox with (publish = 'insert')`;
  await sql`select pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
  await sql.unsafe(`do $$
    declare v verification.verifications;
    begin
      for v in select * from verification.verifications limit ${rows} loop
        insert into public.outbox (id, aggregate_type, aggregate_id, message_type, payload, metadata, created_at)
        values (gen_random_uuid(), 'verification', v.id::text, 'created', to_jsonb(v), '{}', v.inserted_at at time zone 'UTC');
        commit;
      end loop;
    end $$`);
  return { slot };
}

/** The listener with its protections against poisonous messages off, as it recommends for an outbox. */
async function outboxListener(
  stage: Stage,
  { db }: Backlog,
  { slot: origin, rows }: { slot: string; rows: number },
): Promise<Figures> {
  const slot = `copy_${Math.random().toString(36).slice(2, 10)}`;
  await db.sql`select pg_copy_logical_replication_slot(${origin}, ${slot})`;
  const client = { connectionString: db.url };
  const arrived = arrivals(rows);
  const handler: GeneralMessageHandler = {
    handle: async (message, session) => {
      const { id, phone_number, code, gateway_id, gateway_status, inserted_at } = message.payload as Record<
        string,
        unknown
      >;
      await session.query(WRITE, [id, phone_number, String(code), gateway_id, gateway_status, inserted_at]);
      arrived.one();
    },
  };
  const logger = {
    fatal: silent,
    error: silent,
    warn: silent,
    info: silent,
    debug: silent,
    trace: silent,
    silent,
    level: 'silent',
  };
  const [shutdown] = initializeReplicationMessageListener(
    {
      outboxOrInbox: 'outbox',
      dbListenerConfig: client,
      settings: {
        dbSchema: 'public',
        dbTable: 'outbox',
        dbPublication: 'outbox',
        dbReplicationSlot: slot,
        enableMaxAttemptsProtection: false,
        enablePoisonousMessageProtection: false,
      },
    },
    handler,
    logger,
  );
  const rate = await arrived.rate();
  await shutdown();
  await db.sql`truncate public.peer_log`;
  await db.sql`update public.outbox set processed_at = null, started_attempts = 0, finished_attempts = 0, abandoned_at = null`;
  await until(`the slot ${slot} to be free`, async () => {
    const [row] = await db.sql`select active from pg_replication_slots where slot_name = ${slot}`;
    return row?.['active'] === false;
  });
  await db.sql`select pg_drop_replication_slot(${slot})`;
  stage.say(`the outbox's slot ${slot} is read`);
  return { rate };
}

const silent = () => {};

/** Counts rows until there are `wanted`. */
function arrivals(wanted: number) {
  let count = 0;
  let first = 0;
  let done!: (rate: number) => void;
  const all = new Promise<number>((resolve) => {
    done = resolve;
  });
  return {
    one: () => {
      count += 1;
      if (count === 1) first = performance.now();
      if (count === wanted) done(wanted / ((performance.now() - first) / 1000));
    },
    rate: () => all,
  };
}

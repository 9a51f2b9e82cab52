/** Faults of the slot and of the publication. The daemon's role may not give a publication back: the owner does, or `migrate`, when the time is over. */
import { OURS, pick, stubbornly, withSlot, type Fault } from './fault.ts';
import { migrateAtOnce } from './daemons.ts';
import { REPLICATION_ROLE } from '../../../src/demo/roles.ts';
import type { Stage } from '../stage.ts';

const SOURCE = 'verification.verifications';
const NAME = 'smslogd';
const OPTIONS = `publish = 'insert', publish_via_partition_root = true`;

const publicationFault =
  (during: (draw: number) => string): Fault =>
  async ({ stage, draws }) => {
    await stage.db.owner.sql.unsafe(during(draws[0] ?? 0));
    return () => stubbornly(() => giveBack(stage, draws[1] ?? 0));
  };

/** By hand, or by `migrate`; either way it is checked. */
async function giveBack(stage: Stage, draw: number): Promise<void> {
  const { sql } = stage.db.owner;
  if (draw < 0.3) await migrateAtOnce(stage, 1);
  else {
    const [row] = await sql`select from pg_publication where pubname = ${NAME}`;
    if (row === undefined) await sql.unsafe(`create publication ${NAME} for table ${SOURCE} with (${OPTIONS})`);
    else
      await sql
        .unsafe(`alter publication ${NAME} set table ${SOURCE}; alter publication ${NAME} set (${OPTIONS})`)
        .simple();
  }
  const [right] = await sql`
    select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
     where p.pubname = ${NAME} and p.pubinsert and p.pubviaroot and r.prqual is null and r.prrelid = ${SOURCE}::text::regclass`;
  if (right === undefined) throw new Error('the publication is not given back yet');
}

const drop = (slot: string) => `select pg_drop_replication_slot('${slot}')`;

/** Gives up where it waits for a prepared transaction that a crash left behind: those end in the calm only. */
const create = (stage: Stage, plugin: string) =>
  stage.sql
    .unsafe(
      `set local statement_timeout = '10s'; select pg_create_logical_replication_slot('${stage.db.name}', ${plugin})`,
    )
    .simple();

export const STREAM_FAULTS = {
  'slot dropped': async ({ stage }) => withSlot(stage, drop),
  'slot advanced': async ({ stage }) =>
    withSlot(stage, (slot) => `select pg_replication_slot_advance('${slot}', pg_current_wal_lsn())`),
  // another program takes what it has, and the daemons never see it
  'slot consumed': async ({ stage }) =>
    withSlot(
      stage,
      (slot) =>
        `select count(*) from pg_logical_slot_get_binary_changes('${slot}', null, null, 'proto_version', '1', 'publication_names', '${NAME}')`,
    ),
  'slot made again': async ({ stage, draws }) => {
    await withSlot(stage, drop);
    const more = (draws[0] ?? 0) < 0.3 ? ', false, true' : '';
    await create(stage, `'pgoutput'${more}`);
  },
  'slot foreign': async ({ stage }) => {
    const slot = stage.db.name;
    await withSlot(stage, drop);
    await create(stage, `'test_decoding'`);
    return () =>
      stubbornly(async () => {
        await stage.sql.unsafe(
          `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '${slot}' and plugin = 'test_decoding'`,
        );
      });
  },
  'slot lost': async ({ stage, draws }) => {
    const set = (sql: string) =>
      stubbornly(async () => {
        await stage.sql.unsafe(sql);
        await stage.sql`select pg_reload_conf()`;
      });
    const undo = () => set('alter system reset max_slot_wal_keep_size');
    await set(`alter system set max_slot_wal_keep_size = '1MB'`);
    try {
      // with nobody who reads it, or beside somebody
      if ((draws[0] ?? 0) < 0.7) await stage.sql.unsafe(`alter role ${REPLICATION_ROLE} nologin`);
      await stage.sql.unsafe(
        `select pg_terminate_backend(pid) from pg_stat_activity where ${OURS} and backend_type = 'walsender'`,
      );
      for (let segment = 0; segment < 4; segment += 1) {
        await stage.sql`insert into chaos.filler select repeat('x', 1000) from generate_series(1, 5000)`;
        await stage.sql`select pg_switch_wal()`;
      }
      await stage.sql`truncate chaos.filler`;
      await stage.sql`checkpoint`;
    } finally {
      await stubbornly(() => stage.sql.unsafe(`alter role ${REPLICATION_ROLE} login`));
    }
    return undo;
  },
  'publication dropped': publicationFault(() => `drop publication ${NAME}`),
  'publication emptied': publicationFault(() => `alter publication ${NAME} drop table ${SOURCE}`),
  'publication silenced': publicationFault(
    (draw) => `alter publication ${NAME} set (publish = '${pick(['', 'delete', 'update'], draw)}')`,
  ),
  'publication filtered': publicationFault(
    (draw) =>
      `alter publication ${NAME} set table ${SOURCE} ${pick(['where (false)', `where (phone_number like '%1')`, '(id, code)'], draw)}`,
  ),
} satisfies Record<string, Fault>;

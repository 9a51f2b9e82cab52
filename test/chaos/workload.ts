/**
 * The owner of verifications and another service at work, in every way that the mirror must be right in: single rows, late gateway ids, savepoints and whole
 * transactions that are rolled back, prepared transactions, bulk inserts, mass updates, commits that need not be durable. What fails, as with the server
 * away, is counted and passed over: the truth is what the source has.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { seededRandom } from '../../src/simulator/random.ts';
import { openSession, type Query, type Session } from './session.ts';
import type { Stage } from './stage.ts';

export interface Workload {
  /** what was committed, and what failed */
  readonly done: Record<string, number>;
  readonly failed: number;
  /** ids of source rows whose durable commit was confirmed */
  readonly confirmed: ReadonlySet<string>;
  /** to the end of what is under way */
  pause(): Promise<void>;
  resume(): void;
  stop(): Promise<void>;
}

const WORKERS = 4;
/** Milliseconds between two transactions of a worker, on average. */
const GAP_MS = 120;
/** The services' own, as the startup option of a session. */
const PATIENCE = '-c lock_timeout=4s';
const OTHERS = ['medication_request', 'text', '2FA'];

interface Row {
  readonly id: string;
  readonly phone: string;
  readonly code: number;
  readonly gatewayId: string | null;
}

type Work = (worker: Worker) => Promise<void>;

interface Worker {
  readonly owner: Session;
  readonly service: Session;
  readonly random: () => number;
  readonly row: (withId?: boolean) => Row;
  /** its rows were committed durably */
  readonly confirm: (rows: readonly Row[]) => void;
  /** done later, whatever the worker does meanwhile */
  readonly later: (ms: number, work: () => Promise<unknown>) => void;
  readonly other: () => { type: string; row: Row };
}

const insert = (query: Query, rows: readonly Row[]) =>
  query(
    `insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
     select r.id, r.phone, 1, 'new', r.code, clock_timestamp() at time zone 'UTC' + interval '20 seconds', true, r."gatewayId",
            case when r."gatewayId" is not null then 'Accepted' end, clock_timestamp() at time zone 'UTC'
       from json_to_recordset($1::json) as r (id uuid, phone text, code int, "gatewayId" text)`,
    [JSON.stringify(rows)],
  );

class RolledBack extends Error {}

const WORK: Readonly<Record<string, [weight: number, Work]>> = {
  single: [
    40,
    async ({ owner, row, confirm }) => {
      const rows = [row()];
      await owner.query('update verification.verifications set active = false where phone_number = $1 and active', [
        rows[0]!.phone,
      ]);
      await owner.transaction((query) => insert(query, rows));
      confirm(rows);
    },
  ],
  'late gateway id': [
    12,
    async ({ owner, row, confirm, later, random }) => {
      const late = row(false);
      await insert(owner.query, [late]);
      confirm([late]);
      const { gatewayId } = row();
      later(100 + random() * 4_000, () =>
        owner.transaction(async (query) => {
          await query(
            `update verification.verifications set gateway_id = $2, gateway_status = 'Accepted' where id = $1`,
            [late.id, gatewayId],
          );
          await query('insert into chaos.late values ($1, clock_timestamp())', [late.id]);
        }),
      );
    },
  ],
  'never a gateway id': [
    3,
    async ({ owner, row, confirm }) => {
      const rows = [row(false)];
      await insert(owner.query, rows);
      confirm(rows);
    },
  ],
  savepoints: [
    8,
    async ({ owner, row, confirm }) => {
      const [kept, undone, last] = [row(), row(), row()];
      await owner.transaction(async (query) => {
        await insert(query, [kept]);
        await query('savepoint s');
        await insert(query, [undone]);
        await query('rollback to s');
        await query('savepoint t');
        await insert(query, [last]);
      });
      confirm([kept, last]);
    },
  ],
  'rolled back': [
    8,
    async ({ owner, row }) => {
      await owner
        .transaction(async (query) => {
          await insert(query, [row(), row()]);
          throw new RolledBack();
        })
        .catch(ofRollback);
    },
  ],
  prepared: [
    4,
    async ({ owner, row, random, later }) => {
      const name = randomUUID();
      await owner.transaction(async (query) => {
        await insert(query, [row(), row()]);
        await query(`prepare transaction '${name}'`);
      });
      const end = random() < 0.7 ? 'commit' : 'rollback';
      later(random() * 3_000, () => owner.query(`${end} prepared '${name}'`));
    },
  ],
  bulk: [
    2,
    async ({ owner, row, random, confirm }) => {
      const rows = Array.from({ length: Math.round(50 + 1_500 * random() ** 4) }, () => row());
      await insert(owner.query, rows);
      confirm(rows);
    },
  ],
  'slow transaction': [
    3,
    async ({ owner, row, random, confirm }) => {
      const [first, second] = [row(), row()];
      await owner.transaction(async (query) => {
        await insert(query, [first]);
        await delay(random() * 4_000);
        await insert(query, [second]);
      });
      confirm([first, second]);
    },
  ],
  'not durable': [
    8,
    async ({ owner, row }) => {
      await owner.transaction(async (query) => {
        await query('set local synchronous_commit = off');
        await insert(query, [row()]);
      });
    },
  ],
  'mass update': [
    3,
    async ({ owner }) => {
      await owner.query(
        `update verification.verifications set status = 'expired', active = false where active and code_expired_at < now() at time zone 'UTC'`,
      );
    },
  ],
  'another service': [
    20,
    async ({ service, other, random }) => {
      const rows = Array.from({ length: 1 + Math.floor(random() * 4) }, other);
      await service.transaction((query) => insertOthers(query, rows));
    },
  ],
  'another service, late': [
    4,
    async ({ service, other, later, random }) => {
      const { type, row } = other();
      await service.transaction((query) => insertOthers(query, [{ type, row: { ...row, gatewayId: null } }]));
      later(random() * 3_000, () =>
        service.transaction(async (query) => {
          const values = [row.id, row.gatewayId];
          await query(
            `update verification.sms_log set gateway_id = $2, gateway_status = 'Accepted' where id = $1`,
            values,
          );
          await query('update chaos.others set gateway_id = $2 where id = $1', values);
        }),
      );
    },
  ],
};

function ofRollback(error: unknown): void {
  if (!(error instanceof RolledBack)) throw error;
}

async function insertOthers(query: Query, rows: readonly { type: string; row: Row }[]): Promise<void> {
  for (const { type, row } of rows) {
    const values = [row.id, row.phone, type, `A text, ${row.code}`, row.gatewayId];
    await query('insert into chaos.others values ($1, $2, $3, $4, $5, clock_timestamp())', values);
    await query(
      `insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
       select id, phone_number, type, body, gateway_id, case when gateway_id is not null then 'Accepted' end, inserted_at from chaos.others where id = $1`,
      [row.id],
    );
  }
}

export function startWorkload(stage: Stage, seed: number): Workload {
  const done: Record<string, number> = {};
  const confirmed = new Set<string>();
  const under = new Set<Promise<unknown>>();
  const stop = new AbortController();
  let failed = 0;
  let phones = 0;
  let paused: Promise<void> | undefined;
  let resume: (() => void) | undefined;
  const tried = (name: string, work: Promise<unknown>) => {
    const ended = work.then(
      () => (done[name] = (done[name] ?? 0) + 1),
      () => (failed += 1),
    );
    under.add(ended);
    void ended.finally(() => under.delete(ended));
    return ended;
  };

  const sessions: Session[] = [];
  const open = (role: 'owner' | 'service') => {
    const session = openSession(stage.address(role), PATIENCE);
    sessions.push(session);
    return session;
  };
  const total = Object.values(WORK).reduce((sum, [weight]) => sum + weight, 0);
  const turn = async (n: number) => {
    const random = seededRandom(seed * 31 + n);
    const row = (withId = true): Row => {
      const phone = `+38000${String((phones += 1)).padStart(7, '0')}`;
      const gatewayId = withId ? stage.gateway.send(phone).id : null;
      return { id: randomUUID(), phone, code: 1_000 + Math.floor(random() * 9_000), gatewayId };
    };
    const worker: Worker = {
      owner: open('owner'),
      service: open('service'),
      random,
      row,
      confirm: (rows) => rows.forEach(({ id }) => confirmed.add(id)),
      later: (ms, work) => void tried('later', delay(ms).then(work)),
      other: () => ({ type: OTHERS[Math.floor(random() * OTHERS.length)]!, row: row() }),
    };
    while (!stop.signal.aborted) {
      await paused;
      let left = random() * total;
      const [name, [, work]] = Object.entries(WORK).find(([, [weight]]) => (left -= weight) < 0)!;
      await tried(name, work(worker));
      await delay(-Math.log(1 - random()) * GAP_MS);
    }
  };
  const workers = Array.from({ length: WORKERS }, (_, n) => turn(n));
  return {
    done,
    get failed() {
      return failed;
    },
    confirmed,
    async pause() {
      paused = new Promise((resolve) => (resume = resolve));
      while (under.size > 0) await Promise.all(under);
    },
    resume: () => {
      paused = undefined;
      resume?.();
    },
    async stop() {
      stop.abort();
      paused = undefined;
      resume?.();
      await Promise.all(workers);
      while (under.size > 0) await Promise.all(under);
      for (const each of sessions) await each.end();
    },
  };
}

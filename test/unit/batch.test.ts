import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { ZERO_LSN, type Lsn } from '../../src/postgres/lsn.ts';
import { FULL, gather } from '../../src/mirror/batch.ts';
import type { Tuple } from '../../src/replication/pgoutput.ts';
import { tupleOf } from '../support/pgoutput.ts';

const row = (id: string, code = '1234', gatewayStatus = 'Accepted'): Tuple =>
  tupleOf({
    id,
    phone: '+380000000001',
    code,
    insertedAt: '2026-11-20 10:00:00',
    gatewayId: '1',
    gatewayStatus,
  });
const lsn = (value: number) => BigInt(value) as Lsn;

test('a transaction is skipped iff its commit_lsn is below the held position, strictly', () => {
  fc.assert(
    fc.property(fc.nat(100), fc.nat(100), (held, commitLsn) => {
      const gathering = gather(lsn(held));
      gathering.begin(lsn(commitLsn), 0n);
      gathering.insert(row('a'));
      gathering.large('b');
      gathering.partial('c');
      expect(gathering.size).toBe(commitLsn < held ? 0 : 3);
      gathering.commit(lsn(commitLsn + 10), 0n);
      const batch = gathering.take();
      expect(batch.rows.length).toBe(commitLsn < held ? 0 : 1);
      expect([...batch.large, ...batch.partial]).toEqual(commitLsn < held ? [] : ['b', 'c']);
      expect(batch.skipped).toBe(commitLsn < held ? 1 : 0);
      expect(batch.end).toBe(commitLsn < held ? undefined : lsn(commitLsn + 10));
    }),
  );
});

test('the end that is taken is always that of a whole transaction, and no row is lost or doubled, wherever takes fall', () => {
  const transactions = fc.array(fc.array(fc.nat(50), { maxLength: 6 }), { maxLength: 12 });
  fc.assert(
    fc.property(transactions, fc.infiniteStream(fc.boolean()), (sizes, coins) => {
      const gathering = gather(ZERO_LSN);
      const ends = new Set<Lsn | undefined>([undefined]);
      const taken: string[] = [];
      const take = () => {
        const batch = gathering.take();
        expect(ends.has(batch.end)).toBe(true);
        taken.push(...batch.rows.ids().map(String));
        gathering.reuse(batch.rows);
      };
      let position = 10;
      let serial = 0;
      const sent: string[] = [];
      for (const rows of sizes) {
        position += 10;
        gathering.begin(lsn(position), 0n);
        for (const _ of rows) {
          serial += 1;
          sent.push(String(serial));
          gathering.insert(row(String(serial)));
          if (coins.next().value === true) take();
        }
        ends.add(lsn(position + 5));
        gathering.commit(lsn(position + 5), 0n);
        if (coins.next().value === true) take();
      }
      take();
      expect(taken).toEqual(sent);
    }),
  );
});

test('rows of a transaction that is still coming are ready only when they are many', () => {
  const gathering = gather(ZERO_LSN);
  gathering.begin(lsn(1), 0n);
  for (let i = 0; i < FULL - 1; i += 1) gathering.insert(row(String(i)));
  expect(gathering.ready).toBe(false);
  gathering.insert(row('last'));
  expect(gathering.ready).toBe(true);
  expect(gathering.take().end).toBeUndefined();
  gathering.commit(lsn(2), 0n);
  expect(gathering.take()).toMatchObject({ rows: { length: 0 }, end: lsn(2), commitTimes: [0n] });
});

test('rows of many bytes fill a batch sooner', () => {
  const gathering = gather(ZERO_LSN);
  gathering.begin(lsn(1), 0n);
  const code = '1'.repeat(65_536);
  let rows = 0;
  for (; !gathering.ready; rows += 1) gathering.insert(row(String(rows), code));
  expect(rows * code.length).toBeLessThan(4 * 1024 * 1024);
  expect(gathering.take().rows).toHaveLength(rows);
  expect(gathering.size).toBe(0);
});

test('what came again is told once, and only transactions with rows tell how old they are', () => {
  const gathering = gather(lsn(50));
  const transaction = (commitLsn: number, rows: number, committedAt: bigint) => {
    gathering.begin(lsn(commitLsn), 0n);
    for (let i = 0; i < rows; i += 1) gathering.insert(row(String(commitLsn + i)));
    gathering.commit(lsn(commitLsn + 5), committedAt);
  };
  transaction(10, 1, 1n);
  transaction(60, 0, 2n);
  expect(gathering.oldestCommit).toBeUndefined();
  transaction(70, 2, 3n);
  expect(gathering.oldestCommit).toBe(3n);
  expect(gathering.take()).toMatchObject({ skipped: 1, commitTimes: [3n] });
  transaction(80, 1, 4n);
  expect(gathering.take()).toMatchObject({ skipped: 0, commitTimes: [4n] });
});

test('a transaction that is still coming is as old as its commit, from its first row on, taken or not', () => {
  const gathering = gather(ZERO_LSN);
  gathering.begin(lsn(10), 7n);
  expect(gathering.oldestCommit).toBeUndefined();
  for (let i = 0; i < FULL; i += 1) gathering.insert(row(String(i)));
  expect(gathering.oldestCommit).toBe(7n);
  expect(gathering.take()).toMatchObject({ oldestCommit: 7n, commitTimes: [] });
  expect(gathering.oldestCommit).toBe(7n);
  gathering.commit(lsn(15), 7n);
  expect(gathering.take()).toMatchObject({ oldestCommit: 7n, commitTimes: [7n] });
  expect(gathering.oldestCommit).toBeUndefined();
});

test('columns that were gone are told once', () => {
  const gathering = gather(lsn(10));
  gathering.begin(lsn(10), 0n);
  gathering.unreadable(['code']);
  expect(gathering.take().unreadable).toEqual(['code']);
  gathering.commit(lsn(15), 0n);
  // the log holds what comes again
  gathering.begin(lsn(5), 0n);
  gathering.unreadable(['code']);
  gathering.commit(lsn(8), 0n);
  gathering.begin(lsn(20), 0n);
  gathering.commit(lsn(25), 0n);
  expect(gathering.take().unreadable).toEqual([]);
});

test('a status word that is not known is told of each row that has it', () => {
  const told: string[] = [];
  const gathering = gather(ZERO_LSN, { unknownWord: (...words) => told.push(...words) });
  gathering.begin(lsn(10), 0n);
  for (const id of ['a', 'b']) gathering.insert(row(id, '1234', 'Odd'));
  expect(told).toEqual(['a', 'Odd', 'b', 'Odd']);
});

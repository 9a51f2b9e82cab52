import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createDecoder } from '../../src/replication/pgoutput.ts';
import { begin, commit, insert, relation, remove, rowOf, update, type Row } from '../support/pgoutput.ts';

const SOURCE = {
  schema: 'verification',
  name: 'verifications',
  oid: '16400',
  children: [],
  needed: ['id', 'phone_number', 'code', 'inserted_at'],
} as const;
const COLUMNS = ['id', 'phone_number', 'status', 'code', 'gateway_id', 'gateway_status', 'inserted_at'];
const ID = '00000000-0000-4000-8000-000000000001';

type Event =
  | ['begin', bigint]
  | ['insert', Row]
  | ['large', string | null]
  | ['partial', string]
  | ['unreadable', readonly string[]]
  | ['commit', bigint, bigint];

function decode(messages: readonly Buffer[]): Event[] {
  const events: Event[] = [];
  const decoder = createDecoder(SOURCE, {
    begin: (lsn) => events.push(['begin', lsn]),
    insert: (tuple) => events.push(['insert', rowOf(tuple)]),
    large: (id) => events.push(['large', id]),
    partial: (id) => events.push(['partial', id]),
    unreadable: (columns) => events.push(['unreadable', columns]),
    commit: (lsn, time) => events.push(['commit', lsn, time]),
  });
  for (const message of messages) decoder(message);
  return events;
}

test('any text in any column comes out as it went in, whatever of null and unchanged values stands between', () => {
  const value = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constant(null), fc.constant(undefined));
  fc.assert(
    fc.property(value, value, value, (phone, code, status) => {
      const row = [ID, phone, 'new', code, '12', status, 'now'];
      const [event] = decode([relation(1, 'verification', 'verifications', COLUMNS), insert(1, row)]);
      expect(event).toEqual([
        'insert',
        {
          id: ID,
          phone: phone ?? null,
          code: code ?? null,
          gatewayId: '12',
          gatewayStatus: status ?? null,
          insertedAt: 'now',
        },
      ]);
    }),
  );
});

test('borders of a transaction carry the positions: commit_lsn at its begin, end_lsn at its end', () => {
  expect(decode([begin(0x16_0000_0010n), commit(0x16_0000_0010n, 0x16_0000_0040n, -5n)])).toEqual([
    ['begin', 0x16_0000_0010n],
    ['commit', 0x16_0000_0040n, -5n],
  ]);
});

test('columns are found by name in the latest relation message, whatever their order', () => {
  const events = decode([
    relation(1, 'verification', 'verifications', ['inserted_at', 'code', 'phone_number', 'id']),
    insert(1, ['t1', '1', '+380000000001', ID]),
    relation(1, 'verification', 'verifications', ['id', 'phone_number', 'extra', 'inserted_at', 'gateway_id', 'code']),
    insert(1, [ID, '+380000000001', 'x', 't2', '77', '2']),
  ]);
  expect(events).toEqual([
    [
      'insert',
      {
        id: ID,
        phone: '+380000000001',
        code: '1',
        gatewayId: null,
        gatewayStatus: null,
        insertedAt: 't1',
      },
    ],
    [
      'insert',
      {
        id: ID,
        phone: '+380000000001',
        code: '2',
        gatewayId: '77',
        gatewayStatus: null,
        insertedAt: 't2',
      },
    ],
  ]);
});

test('an empty gateway id is none', () => {
  const [event] = decode([
    relation(1, 'verification', 'verifications', COLUMNS),
    insert(1, [ID, '+380000000001', 'new', '1', '', 'Accepted', 't']),
  ]);
  expect(event?.[1]).toMatchObject({ gatewayId: null });
});

test('other tables, updates, deletes, truncates and messages are passed over', () => {
  const events = decode([
    relation(2, 'public', 'verifications', COLUMNS),
    relation(3, 'verification', 'other', ['a']),
    insert(2, [ID, '+380000000001', 'new', '1', '12', 'Accepted', 't']),
    insert(3, ['x']),
    insert(4, ['never described']),
    // which bore the name before
    relation(5, 'verification', 'verifications', COLUMNS),
    relation(5, 'verification', 'verifications_old', COLUMNS),
    insert(5, [ID, '+380000000001', 'new', '1', '12', 'Accepted', 't']),
    relation(1, 'verification', 'verifications', COLUMNS),
    update(1, [ID, undefined, null, '1', '12', 'Accepted', 't']),
    remove(1, [ID, null, null, null, null, null, null]),
    Buffer.from('T'),
    Buffer.from('M'),
    Buffer.from('O'),
    Buffer.from('Y'),
  ]);
  expect(events).toEqual([]);
});

test('a row from when a needed column was gone is told by its id, or as unreadable where it has none', () => {
  const events = decode([
    relation(1, 'verification', 'verifications', ['id', 'phone']),
    insert(1, [ID, '+380000000001']),
    insert(1, [null, '+380000000001']),
    relation(1, 'verification', 'verifications', ['key', 'phone_number', 'code', 'inserted_at']),
    insert(1, [ID, '+380000000001', '1', 't']),
  ]);
  expect(events).toEqual([
    ['partial', ID],
    // nothing can read it by its key: the log rejects it as any other one without an id
    ['insert', expect.objectContaining({ id: null, code: null })],
    ['unreadable', ['id']],
  ]);
});

test('an unknown kind of message is an error', () => {
  expect(() => decode([Buffer.from('Z')])).toThrow(expect.objectContaining({ code: 'protocol' }));
});

test('the table is known by its oid too, whatever it was called when a row was written', () => {
  const [event] = decode([
    relation(16400, 'verification', 'verifications_old', COLUMNS),
    insert(16400, [ID, '+380000000001', 'new', '1', '12', 'Accepted', 't']),
  ]);
  expect(event?.[1]).toMatchObject({ id: ID });
});

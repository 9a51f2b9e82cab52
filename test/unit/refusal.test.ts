import { array, assert, asyncProperty, constant, constantFrom, integer, nat, oneof } from 'fast-check';
import { expect, test } from 'vitest';
import { faultOf, writeAccepted } from '../../src/postgres/refusal.ts';

/** An error of the server as postgres.js gives it. */
const refusal = (code: string, more: { severity?: string; routine?: string; where?: string } = {}) =>
  Object.assign(new Error('refused'), { code, severity: 'ERROR', ...more });
const RAISED = { routine: 'exec_stmt_raise' };
const IN_TRIGGER = { routine: 'ProcSleep', where: 'PL/pgSQL-Funktion audit() Zeile 3 bei SQL-Anweisung' };

const sorted = (some: readonly number[]) => some.toSorted((a, b) => a - b);

/** Writes 0 to `count` - 1; `refuses` gives the error for rows that are written together. */
async function write(count: number, refuses: (rows: readonly number[]) => unknown) {
  const accepted: number[] = [];
  const refused: number[] = [];
  let statements = 0;
  const done = await writeAccepted(
    [...Array(count).keys()],
    async (rows) => {
      statements += 1;
      const error = refuses(rows);
      if (error !== undefined) throw error;
      accepted.push(...rows);
    },
    async (row) => void refused.push(row),
  ).then(
    () => undefined,
    (error: unknown) => error,
  );
  return { accepted: sorted(accepted), refused: sorted(refused), statements, error: done };
}

test('the rows whose own fault it is are refused once each, and every other is accepted once, whatever the code', async () => {
  const codes = oneof(
    constantFrom('22003', '23505', '44000', 'P0001', '54000', 'SM001', 'ABCDE').map((code) => refusal(code)),
    constantFrom('08006', '25006', '40001', '42501', '53100', '55P03', '57P01', '58030', 'XX000').map((code) =>
      refusal(code, RAISED),
    ),
    constantFrom('0A000', '2F005', '39P01', '42501', 'XX002').map((code) => refusal(code)),
    constant(refusal('55P03', IN_TRIGGER)),
  );
  await assert(
    asyncProperty(
      integer({ min: 9, max: 300 }),
      array(nat(), { minLength: 1, maxLength: 7 }),
      codes,
      async (count, some, error) => {
        const bad = new Set(some.map((n) => n % count));
        const result = await write(count, (rows) => (rows.some((row) => bad.has(row)) ? error : undefined));
        expect(result.error).toBeUndefined();
        expect(new Set(result.refused)).toEqual(bad);
        expect(result.refused.length + result.accepted.length).toBe(count);
        expect(new Set([...result.refused, ...result.accepted]).size).toBe(count);
        expect(result.statements).toBeLessThan(12 + bad.size * 2 * Math.ceil(Math.log2(count) + 1));
      },
    ),
  );
});

test('what concerns every row is thrown after a few statements, and refuses none', async () => {
  const whole = [
    refusal('42P01'),
    refusal('42501'),
    refusal('25006'),
    // by a statement-level trigger: also a statement without rows fails
    refusal('57P01', RAISED),
    refusal('53100'),
    refusal('55P03'),
    refusal('40P01'),
    refusal('57014', IN_TRIGGER),
    refusal('57P01', { severity: 'FATAL' }),
    Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }),
    Object.assign(new Error('write CONNECTION_CLOSED'), { code: 'CONNECTION_CLOSED' }),
    new Error('no code'),
  ];
  for (const error of whole)
    for (const count of [1, 2, 5_000]) {
      const result = await write(count, () => error);
      expect(result).toMatchObject({ accepted: [], refused: [], error });
      expect(result.statements).toBeLessThan(10);
    }
});

test('a row that is alone is refused for what was raised of it, and not for what may concern every row', async () => {
  const raised = await write(1, (rows) => (rows.length > 0 ? refusal('57P01', RAISED) : undefined));
  expect(raised).toMatchObject({ refused: [0], error: undefined });
  const unclear = await write(1, (rows) => (rows.length > 0 ? refusal('42501') : undefined));
  expect(unclear).toMatchObject({ refused: [], error: { code: '42501' } });
});

test('that nothing fails without rows is no proof against rows that fail for what may concern every row', async () => {
  const result = await write(7, (rows) => {
    if (rows.length === 0) return undefined;
    return rows.includes(0) ? refusal('57P01', RAISED) : refusal('42501');
  });
  expect(result).toMatchObject({ accepted: [], refused: [], error: { code: '42501' } });
});

test('a cause that becomes that of every row in the midst of it is thrown, and refuses no more rows than are tried to find that out', async () => {
  const unclear = refusal('42P01', IN_TRIGGER);
  const statement = refusal('42501', RAISED);
  await assert(
    asyncProperty(
      integer({ min: 20, max: 300 }),
      array(nat(), { minLength: 1, maxLength: 3 }),
      integer({ min: 1, max: 60 }),
      constantFrom([unclear, unclear], [statement, unclear], [statement, statement]),
      async (count, some, change, [before, after]) => {
        const bad = new Set(some.map((n) => n % count));
        let statements = 0;
        let ends: number | undefined;
        const result = await write(count, (rows) => {
          statements += 1;
          // a trigger for each statement fails also without rows
          if (statements > change) return rows.length > 0 || after === statement ? after : undefined;
          ends = statements;
          return rows.some((row) => bad.has(row)) ? before : undefined;
        });
        const innocent = result.refused.filter((row) => !bad.has(row));
        const settled = result.accepted.length + result.refused.length;
        expect(settled === count || result.error === after).toBe(true);
        // at the end of the rows it cannot be told any more
        expect(innocent.length).toBeLessThanOrEqual(after === unclear && settled === count ? 8 : 0);
        expect(statements - ends!).toBeLessThan(60);
      },
    ),
  );
});

test('many rows in a row that are refused keep none aside that is not, and none of the others back', async () => {
  for (const [from, to] of [
    [0, 50],
    [25, 75],
    [70, 92],
  ] as const) {
    const is = (row: number) => row >= from && row < to;
    const result = await write(100, (rows) => (rows.some(is) ? refusal('42P01', IN_TRIGGER) : undefined));
    expect(result).toMatchObject({ refused: [...Array(to - from).keys()].map((i) => from + i), error: undefined });
    expect(result.accepted).toHaveLength(100 - to + from);
  }
});

test('a connection that ends in the midst of it refuses nothing more', async () => {
  let statements = 0;
  const result = await write(16, () => {
    statements += 1;
    return statements < 4 ? refusal('P0001') : Object.assign(new Error('gone'), { code: 'CONNECTION_CLOSED' });
  });
  expect(result).toMatchObject({ refused: [], error: { code: 'CONNECTION_CLOSED' } });
});

test("the server's own message in any language tells the code of a trigger from a lock of our own", () => {
  expect(faultOf(refusal('55P03', IN_TRIGGER))).toBe('unclear');
  expect(faultOf(refusal('55P03', { where: 'while locking tuple (0,1) in relation "sms_log"' }))).toBe('whole');
});

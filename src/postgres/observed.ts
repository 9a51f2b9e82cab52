/** Which statements of a pool wait for their answer, and since when. */
import { runningMs } from '../running-time.ts';
import type { Sql } from './pools.ts';

export interface Waiting {
  /** those that wait for their answer, and since when */
  readonly statements: Map<object, number>;
  /** when the last answer came */
  answeredAt?: number;
}

/** What of postgres.js's Query is used to see when a statement is sent and when its answer has come. */
interface Statement {
  handler: (statement: Statement) => unknown;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

/** The same pool, whose statements `waiting` shows. */
export function observed(sql: Sql, waiting: Waiting): Sql {
  const { statements } = waiting;
  const observe = (made: unknown): unknown => {
    // names and values are no statements, and a fragment of another statement is never sent by itself
    if (!(made instanceof Promise)) return made;
    const statement = made as unknown as Statement;
    const { handler, resolve, reject } = statement;
    statement.handler = (each) => {
      statements.set(made, runningMs());
      return handler(each);
    };
    statement.resolve = (value) => {
      statements.delete(made);
      waiting.answeredAt = runningMs();
      resolve(value);
    };
    statement.reject = (error) => {
      statements.delete(made);
      reject(error);
    };
    return made;
  };
  const unsafe = (...words: Parameters<Sql['unsafe']>) => observe(sql.unsafe(...words));
  return new Proxy(sql, {
    apply: (_, self, words: never) => observe(Reflect.apply(sql, self, words)),
    get: (_, name) => (name === 'unsafe' ? unsafe : (Reflect.get(sql, name) as unknown)),
  });
}

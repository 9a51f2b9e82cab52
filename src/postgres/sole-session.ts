/**
 * The logins of the control connection, about which nobody else could ask the server: each exists beside one session at most that it may have left there, and
 * terminates it. A third waits until the server must have ended one of the two.
 */
import { runningMs } from '../running-time.ts';
import type { Opening } from './clients.ts';
import { mayBeLetIn } from './login.ts';
import { failure, saidByServer } from './messages.ts';

/** The server ends a session that rests for so many seconds, which it does not while the watch looks: so a login ends by itself that nobody heard of. */
const IDLE_S = 10;
/** By then it has. */
const LEFT_MS = 1_000 * IDLE_S + 5_000;
/** A session that the server says it ends is gone by then. */
const LEAVES_MS = 1_000;
/** The server waits so long for the end of a session that the next one terminates. */
const TERMINATES_MS = 1_000;

/** `others`: what selects the process ids of its other sessions. */
export function soleSession(
  others: () => string,
  pooled: () => boolean,
): Omit<Opening, 'name'> & { readonly options: string } {
  /** sessions and logins that were lost and that the server may have left: until when */
  let lost: number[] = [];
  const lose = (ms: number) => void lost.push(runningMs() + ms);
  return {
    options: `-c idle_session_timeout=${IDLE_S}s`,
    around: async (login) => {
      lost = lost.filter((end) => end > runningMs());
      if (lost.length > 1)
        throw failure('CONNECT_TIMEOUT', 'the server may have two sessions left of the control connection');
      const session = await login().catch((error: unknown) => {
        if (mayBeLetIn(error)) lose(LEFT_MS);
        throw error;
      });
      let left = Infinity;
      session.socket.on('error', (error) => {
        if (saidByServer(error)) left = LEAVES_MS;
      });
      // whoever ended it without the server's word: a machine between may have, which the server need not have heard of. It need not rest there either: the server
      // waits without limit for the rest of a statement
      session.socket.once('close', () => {
        if (!pooled()) lose(left);
      });
      return session;
    },
    // before anybody has the new session: it may be lost as soon
    first: async (ask) => {
      if (lost.length === 0 || pooled()) return;
      const terminate = `select count(pg_terminate_backend(pid, ${TERMINATES_MS})) from (${others()}) s`;
      lost = (await ask(terminate)) === '0' || (await ask(terminate)) === '0' ? [] : [runningMs() + LEFT_MS];
    },
  };
}

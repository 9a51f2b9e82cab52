/** How often the replication connection is told what is durable, and how long its silence is borne; milliseconds. */
const LONGEST_INTERVAL_MS = 10_000;
const SHORTEST_SILENCE_MS = 10_000;

/**
 * `senderTimeoutMs`: wal_sender_timeout; 0: the server never hangs up. The server must hear of us well within it. Each time it is asked for an answer,
 * so that a connection without a byte for three intervals is dead. But while it works through a big transaction of which it has nothing to send, as
 * one of other tables, it looks for what we say only after half of its timeout.
 */
export function keepaliveTimes(senderTimeoutMs: number): { readonly interval: number; readonly silence: number } {
  const interval = Math.min(LONGEST_INTERVAL_MS, (senderTimeoutMs || Infinity) / 3);
  return { interval, silence: Math.max(3 * interval, SHORTEST_SILENCE_MS, senderTimeoutMs / 2 + interval) };
}

/** The facts of the page as the database alone tells them, for who looks from elsewhere, also where no daemon runs. */
import type { Config } from '../settings.ts';
import { SENTENCES, type SmslogdError } from '../errors.ts';
import { HOURS } from '../figures/gauges.ts';
import { readAsked, readFacts, readHours, type Asked, type Facts, type Hour } from '../figures/readings.ts';
import { POLL_RESULTS, type GatewayTrouble, type MirrorState, type PollResult } from '../metrics.ts';
import type { Sql } from '../postgres/pools.ts';
import { checkpointAt, figuresOf, isoTime, type Known, type StatusFacts } from './facts.ts';
import type { Requests } from './requests.ts';
import type { Settling } from './settling.ts';
import { judge } from './verdict.ts';

type Settings = Pick<Config, 'SLOT_NAME' | 'LATENCY_SOURCE'>;

/** PostgreSQL gives a reading up after so long. */
const LIMIT_MS = 10_000;
/** An answer that brings no news is not written: with less silence than this nothing is wrong. */
const NEWS_SECONDS = 60;

export interface Reading {
  readonly facts: Facts;
  readonly hours: readonly Hour[];
  readonly asked: Asked;
}

/** Reads all that there is to know. Throws what the database throws. */
export async function readStatus(sql: Sql, { SLOT_NAME }: Settings): Promise<Reading> {
  return {
    facts: await readFacts(sql, SLOT_NAME, LIMIT_MS),
    hours: await readHours(sql, HOURS, LIMIT_MS),
    asked: await readAsked(sql, LIMIT_MS),
  };
}

/** `problem`: why there is no reading. */
export function factsOf(
  reading: Reading | undefined,
  problem: SmslogdError | undefined,
  { config, version, settling }: { config: Settings; version: string; settling: Settling },
): StatusFacts {
  const { facts, hours, asked } = reading ?? {};
  const mirror = mirrorOf(facts);
  const known: Known = {
    version,
    seen_from: 'database',
    ready: problem === undefined && mirror !== 'stopped',
    reason: problem === undefined ? null : (SENTENCES[problem.code] ?? problem.message),
    loops: ['mirror', 'poller'],
    silent_loops: [],
    mirror,
    mirror_problem: facts?.removed === true ? 'removed' : null,
    database_problem: problem?.code ?? null,
    standing: 'unknown',
    latency_source: config.LATENCY_SOURCE,
    ...figuresOf(facts, facts === undefined ? null : 0, hours),
    history_minutes: facts === undefined ? null : settling.minutes(facts.history_due, facts.at),
    pipeline: {
      lag_seconds: null,
      lag_bytes: facts?.slot?.behind ?? null,
      missing_rows: null,
      checkpoint_at: checkpointAt(facts),
    },
    gateway: gatewayOf(facts, asked),
  };
  return { ...known, verdict: judge(known) };
}

/** What the mirror of the daemon that leads does, by its lease, the checkpoint and the slot. */
function mirrorOf(facts: Facts | undefined): MirrorState {
  if (facts === undefined || facts.removed || facts.leader?.leads !== true || !facts.leader.mirrors) return 'stopped';
  if (facts.reconcile !== null) return facts.reconcile === FIRST_COPY ? 'snapshot' : 'repairing';
  return facts.leader.streaming && facts.slot?.active === true ? 'streaming' : 'repairing';
}

/** As the mirror marks it (src/mirror/mode.ts). */
const FIRST_COPY = 'first start';

function gatewayOf(facts: Facts | undefined, asked: Asked | undefined): Known['gateway'] {
  const requests = Object.fromEntries(POLL_RESULTS.map((result) => [result, asked?.results[result] ?? 0])) as Requests;
  const newsAt = asked?.news_at ?? null;
  const silence = facts === undefined || newsAt === null ? null : Math.max(0, facts.at - newsAt);
  const trouble = silence === null || silence > NEWS_SECONDS ? troubleOf(requests) : null;
  return {
    breaker_open: trouble !== null,
    concurrency_limit: null,
    in_flight: null,
    last_success_at: newsAt === null ? null : isoTime(newsAt),
    last_success_age: silence,
    requests,
    trouble,
    clock_offset: null,
    dates: { answers: 0, future: 0, delivered: 0, negative: 0 },
  };
}

/** What most of the last requests met, where more failed than not. */
function troubleOf(requests: Requests): GatewayTrouble | null {
  const sum = (results: readonly PollResult[]) => results.reduce((total, result) => total + requests[result], 0);
  const refused = requests.unauthorized;
  const failed = sum(['timeout', 'network', 'http_5xx']);
  if (refused + failed <= sum(['ok', 'unchanged'])) return null;
  return refused >= failed ? 'gateway_unauthorized' : 'gateway_unreachable';
}

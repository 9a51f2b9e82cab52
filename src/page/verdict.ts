/**
 * Is the SMS channel well? One word, one sentence, and the findings that led to it. What hides the channel from us (the gateway refuses
 * the login, the database is silent) is told apart from a channel that fails: then it is not known how it is.
 */
import { SENTENCES as SENTENCES_OF } from '../errors.ts';
import { SMS_TYPES, type SmsType } from '../status.ts';
import type { GatewayTrouble } from '../metrics.ts';
import type { Known } from './facts.ts';
import { WAL_AT_RISK } from '../mirror/slot-health.ts';
import {
  BREAK_SECONDS,
  CLOCK_SECONDS,
  CLOCK_SHARE,
  ENOUGH,
  LAG_SECONDS,
  ON_TIME,
  OPEN_SECONDS,
  SILENCE_SECONDS,
  STALE_SECONDS,
} from './thresholds.ts';
import { age, count, percent } from './wording.ts';

export type Level = 'well' | 'impaired' | 'failing' | 'unknown';

export interface Finding {
  readonly level: Exclude<Level, 'well'>;
  readonly sentence: string;
  /** heading of docs/runbook.md */
  readonly runbook: string;
  /** where it hides the channel from us: why, in a few words without a full stop */
  readonly cause?: string;
}

export interface Verdict {
  readonly level: Level;
  readonly sentence: string;
  /** what the sentence rests on, where there are SMS enough */
  readonly because: string | null;
  /** the worst first */
  readonly findings: readonly Finding[];
}

const SENTENCES: Readonly<Record<Exclude<Level, 'unknown'>, string>> = {
  well: 'The SMS channel is well.',
  impaired: 'The SMS channel works, with trouble.',
  failing: 'The SMS channel is not well.',
};
/** Where nothing is wrong, and no SMS arrived lately that would show it. */
const UNPROVEN = 'No trouble is seen.';
/** While a first copy is under way, young SMS wait for their turn to be copied. */
const COPYING = 'The first copy of the source is under way.';
/** What is not seen cannot be said to fail. */
const WORST_FIRST: readonly Level[] = ['unknown', 'failing', 'impaired'];

export function judge(known: Known): Verdict {
  const asking = gateway(known);
  // while no status is learned, SMS that are not known to have arrived say nothing of the channel
  const blind = asking.some(({ level }) => level === 'unknown');
  const wrong = clock(known);
  const within = wrong.length === 0 ? ' within 2 minutes' : '';
  const copying = known.mirror === 'snapshot';
  const arrivals =
    blind || copying
      ? []
      : SMS_TYPES.map((type) => arrivalOf(type, known, within !== '')).filter((each) => each !== undefined);
  const findings = [
    ...sight(known),
    ...pipeline(known),
    ...asking,
    ...arrivals.flatMap((each) => late(each, within)),
    ...backlog(known),
    ...wrong,
  ].sort((a, b) => WORST_FIRST.indexOf(a.level) - WORST_FIRST.indexOf(b.level));
  const level = findings[0]?.level ?? 'well';
  const sentence =
    level === 'unknown'
      ? `${findings[0]?.cause ?? 'Something hides it'}: channel status unknown.`
      : level === 'well' && arrivals.length === 0
        ? copying
          ? COPYING
          : UNPROVEN
        : SENTENCES[level];
  return {
    level,
    sentence,
    because: blind || known.read_at === null || isStale(known) ? null : because(known, arrivals, within),
    findings,
  };
}

const isStale = ({ read_age: readAge }: Known) => readAge !== null && readAge > STALE_SECONDS;

function sight(known: Known): Finding[] {
  const { database_problem, read_at, read_age, silent_loops: silent, source_tracked, periods } = known;
  const found: Finding[] = [];
  const say = (cause: string, effect: string, runbook: string) =>
    void found.push({ level: 'unknown', sentence: `${cause}${effect}.`, runbook, cause });
  if (database_problem !== null) {
    const cause = capital(SENTENCES_OF[database_problem] ?? 'PostgreSQL does not answer as it should');
    // whether the daemon reaches it is not seen from elsewhere
    say(cause, known.seen_from === 'daemon' ? ': new SMS are not logged' : '', database_problem);
  } else if (read_at === null) say('The database has not answered yet', '', 'SmslogdFiguresStale');
  else if (isStale(known)) {
    say(
      `The database has not been read for ${age(read_age)}`,
      ': every figure here is that old',
      'SmslogdFiguresStale',
    );
  }
  for (const loop of silent) say(`The ${loop} of this daemon stands still`, '', 'SmslogdDown');
  if (source_tracked === false && !periods.some(isJudged) && periods.some((row) => row.total > 0)) {
    say('The source has no gateway ids', ', so nobody can tell whether its SMS arrive', 'SmslogdNoSmsDelivered');
  }
  return found;
}

const capital = (text: string) => text.replace(/^./, (first) => first.toUpperCase());

/** Where the source has no gateway ids, nobody knows what became of its SMS. */
export function isJudged({ total, untracked }: Known['periods'][number]): boolean {
  return total > untracked;
}

function pipeline(known: Known): Finding[] {
  const { loops, mirror, mirror_problem, database_problem, slot, read_at, leader, pipeline } = known;
  // of a database that does not answer nothing else is known
  if (!loops.includes('mirror') || read_at === null || database_problem !== null) return [];
  const found: Finding[] = [];
  const say = (level: Finding['level'], sentence: string, runbook: string, cause?: string) =>
    void found.push({ level, sentence, runbook, ...(cause === undefined ? {} : { cause }) });
  // what was not seen is not told: whether another daemon is at work only the lease says
  if (mirror === 'stopped') {
    const nobody =
      leader?.leads !== true ? 'no daemon leads' : leader.mirrors ? 'the mirror is stopped' : 'no daemon mirrors';
    const why =
      mirror_problem === null ? nobody : (SENTENCES_OF[mirror_problem] ?? `the mirror fails (${mirror_problem})`);
    say(
      'unknown',
      `New verifications do not reach the log: ${why}.`,
      mirror_problem ?? 'SmslogdSlotInactive',
      capital(why),
    );
  } else if (mirror === 'standby' && slot?.active !== true) {
    say('impaired', 'Another daemon leads, and does not read the replication slot now.', 'SmslogdSlotInactive');
  } else if (mirror === 'repairing') {
    say('impaired', 'The mirror repairs the log: figures may be incomplete for a while.', 'SmslogdMirrorLag');
  }
  if (mirror !== 'standby' && mirror !== 'stopped' && (pipeline.lag_seconds ?? 0) > LAG_SECONDS) {
    say('impaired', `The log is ${age(pipeline.lag_seconds)} behind the source.`, 'SmslogdMirrorLag');
  }
  if (slot != null && WAL_AT_RISK.includes(slot.wal_status ?? '')) {
    say('impaired', 'The replication slot is about to be lost, or is lost.', 'SmslogdSlotAboutToBeLost');
  }
  const missing = pipeline.missing_rows ?? 0;
  if (missing > 0)
    say('impaired', `The log lacked ${count(missing)} rows of the source; they are filled in.`, 'rows_missing');
  const refused = known.refused_rows ?? 0;
  if (refused > 0)
    say('impaired', `The log refuses ${count(refused)} rows of the source; they are set aside.`, 'row_refused');
  return found;
}

const finding = (level: Finding['level'], sentence: string, runbook: string, cause?: string): Finding[] => [
  { level, sentence, runbook, ...(cause === undefined ? {} : { cause }) },
];

/** What was seen of the gateway, and its place in the runbook. */
const TROUBLES: Readonly<Record<GatewayTrouble, readonly [cause: string, runbook: string]>> = {
  gateway_unauthorized: ['the gateway refuses the login', 'SmslogdGatewayUnauthorized'],
  gateway_unreachable: ['the gateway cannot be reached', 'gateway_unreachable'],
  gateway_busy: ['the gateway asks for a pause', 'gateway_busy'],
};

function gateway({ loops, gateway, poll_due: due, open, seen_from }: Known): Finding[] {
  if (!loops.includes('poller')) return [];
  const { trouble, last_success_age: silence } = gateway;
  const since =
    silence !== null ? `for ${age(silence)}` : seen_from === 'daemon' ? 'since this daemon started' : 'so far';
  const refused = trouble === 'gateway_unauthorized';
  if (gateway.breaker_open && (refused || (due ?? 0) > 0)) {
    const level = !refused && silence !== null && silence < BREAK_SECONDS ? 'impaired' : 'unknown';
    const [why, runbook] =
      trouble === null ? (['the gateway does not answer', 'SmslogdPollStale'] as const) : TROUBLES[trouble];
    return finding(
      level,
      `No status is learned: ${why}${refused ? '' : `, and no answer came ${since}`}.`,
      runbook,
      capital(why),
    );
  }
  const { ok, unchanged, ...unanswered } = gateway.requests;
  const inVain = ok + unchanged === 0 && Object.values(unanswered).reduce((total, each) => total + each, 0) >= ENOUGH;
  // where no daemon polls, nothing was asked in vain either
  const waited =
    silence ??
    (seen_from === 'database' && ok + unchanged === 0 ? Math.max(...open.map((row) => row.oldest_age ?? 0)) : 0);
  if ((silence === null && inVain) || ((due ?? 0) > 0 && waited > SILENCE_SECONDS)) {
    const cause = `No answer of the gateway ${since}`;
    return finding('unknown', `SMS wait to be asked for, and no answer came ${since}.`, 'SmslogdPollStale', cause);
  }
  return [];
}

const wrongClock = (sentence: string) => finding('impaired', sentence, 'SmslogdGatewayClock');
const many = (some: number, all: number) => all >= ENOUGH && some / all > CLOCK_SHARE;

/** Whether times of delivery can be believed: they are the gateway's dates minus our source's. */
function clock({ loops, gateway: { clock_offset: offset, dates } }: Known): Finding[] {
  if (!loops.includes('poller')) return [];
  if (offset !== null && Math.abs(offset) >= CLOCK_SECONDS) {
    const where = offset < 0 ? 'behind' : 'ahead';
    return wrongClock(
      `The gateway's clock is ${age(Math.abs(offset))} ${where}: times of delivery are wrong by that much.`,
    );
  }
  if (many(dates.negative, dates.delivered)) {
    return wrongClock(
      `${count(dates.negative)} of ${count(dates.delivered)} SMS were delivered before they were sent, by the gateway's dates: times of delivery are too short.`,
    );
  }
  if (many(dates.future, dates.answers)) {
    return wrongClock(
      `${count(dates.future)} of ${count(dates.answers)} answers of the gateway have a date yet to come: times of delivery are too long.`,
    );
  }
  return [];
}

interface Arrival {
  readonly type: SmsType;
  readonly sms: number;
  readonly arrived: number;
  readonly when: string;
}

/** How many of the latest SMS that are followed arrived, `timed`: on time; undefined where there are too few. */
function arrivalOf(
  type: SmsType,
  { recent, hours, read_at: readAt, poll_due: due }: Known,
  timed: boolean,
): Arrival | undefined {
  const now = recent.filter((row) => row.type === type && row.outcome !== 'untracked');
  const counts = timed ? ['on_time'] : ['on_time', 'late'];
  const young = { sms: smsIn(now), arrived: smsIn(now.filter(({ outcome }) => counts.includes(outcome))) };
  if (young.sms >= ENOUGH) return { type, ...young, when: '2 to 12 minutes ago' };
  const readNow = Date.parse(readAt ?? '') / 1000;
  const latest = hours.filter((row) => row.type === type && row.hour > readNow - 7_200);
  const older = {
    sms: latest.reduce((total, row) => total + row.due, 0),
    arrived: latest.reduce((total, row) => total + (timed ? row.on_time : Math.min(row.due, row.delivered)), 0),
  };
  // after a first copy these may be SMS that nobody has asked for yet: those past their life come last
  const asked = (due ?? 0) < older.sms;
  return asked && older.sms >= ENOUGH ? { type, ...older, when: 'this hour or the last' } : undefined;
}

const smsIn = (rows: Known['recent']) => rows.reduce((total, { sms }) => total + sms, 0);

function late({ type, sms, arrived, when }: Arrival, within: string): Finding[] {
  const ratio = arrived / sms;
  // what chance may do with so few SMS is no trouble
  const benefit = ratio + 2 * Math.sqrt((ratio * (1 - ratio)) / sms);
  if (benefit >= ON_TIME.impaired) return [];
  const level = benefit < ON_TIME.failing ? 'failing' : 'impaired';
  const sentence = `Only ${percent(ratio)} of ${count(sms)} SMS of type ${type}, sent ${when}, are known to have arrived${within}.`;
  return finding(level, sentence, 'SmslogdOnTimeFastBurn');
}

function backlog({ overdue }: Known): Finding[] {
  const oldest = Math.max(0, ...overdue.map((row) => row.age));
  if (oldest <= OPEN_SECONDS) return [];
  const sentence = `SMS past their life have no final status yet, the oldest for ${age(oldest)}.`;
  return finding('impaired', sentence, 'SmslogdBacklogOld');
}

function because(
  { periods, poll_due: due, mirror }: Known,
  arrivals: readonly Arrival[],
  within: string,
): string | null {
  if (arrivals.length === 0) {
    if (mirror === 'snapshot') return 'The figures are filling up; SMS are judged once it is done.';
    if (periods.every(({ total }) => total === 0)) return 'There are no SMS yet.';
    if (due !== null && due >= ENOUGH)
      return `${count(due)} SMS wait to be asked for: too little is known to say more.`;
    return periods.some(isJudged) ? 'Too few SMS were sent lately to say more.' : null;
  }
  const sms = arrivals.reduce((sum, each) => sum + each.sms, 0);
  const arrived = arrivals.reduce((sum, each) => sum + each.arrived, 0);
  const when = new Set(arrivals.map((each) => each.when)).size === 1 ? arrivals[0]!.when : 'lately';
  return `${percent(arrived / sms)} of the ${count(sms)} SMS sent ${when} arrived${within}.`;
}

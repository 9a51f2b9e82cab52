/**
 * What a campaign does, drawn from its seed and nothing else, so that a plan can be repeated. It is a list of rounds; each has faults, which may overlap, and
 * ends with a calm. A fault has numbers of its own from 0 to 1, by which it chooses its target.
 */
import { seededRandom } from '../../src/simulator/random.ts';

/** Every fault: how often it is drawn beside others, and for how many seconds it lasts. */
export const FAULTS = {
  // daemons
  'leader killed': [6, 0, 8],
  'leader terminated': [3, 0, 8],
  'leader frozen': [5, 1, 25],
  'daemon killed': [3, 0, 8],
  'daemon frozen': [3, 1, 25],
  'all daemons killed': [2, 0, 10],
  'all daemons frozen': [2, 1, 20],
  'daemon killed again and again': [2, 3, 12],
  'daemon with other settings': [3, 1, 20],
  'migrate by four': [3, 0, 1],
  upgrade: [3, 0, 1],
  'clock stepped': [3, 2, 30],
  'log disk full': [3, 2, 20],
  'PgBouncer restarted': [3, 5, 25],
  // the server
  'server stopped': [2, 0, 12],
  'server crashed': [3, 0, 6],
  'server killed': [2, 0, 6],
  'server settings': [2, 3, 25],
  'role read only': [3, 2, 20],
  'role without login': [2, 2, 15],
  'role with few connections': [2, 3, 20],
  'role with timeouts': [2, 3, 20],
  'standby missing': [2, 2, 12],
  'sessions ended': [4, 0, 1],
  'stream ended': [3, 0, 1],
  'statements cancelled': [3, 0, 1],
  'disk full': [2, 3, 20],
  // slot and publication
  'slot dropped': [5, 0, 1],
  'slot lost': [3, 1, 4],
  'slot advanced': [4, 0, 1],
  'slot consumed': [3, 0, 1],
  'slot made again': [3, 0, 1],
  'slot foreign': [2, 2, 25],
  'publication dropped': [6, 0, 150],
  'publication emptied': [5, 0, 60],
  'publication silenced': [4, 0, 150],
  'publication filtered': [3, 0, 40],
  // what smslogd owns
  'queue emptied': [2, 0, 1],
  'queue locked': [3, 1, 25],
  'checkpoint deleted': [4, 0, 1],
  'checkpoint spoiled': [3, 0, 1],
  'lease stolen': [3, 0, 1],
  'log locked': [5, 1, 30],
  'source locked': [3, 1, 25],
  'state locked': [4, 1, 25],
  'rows locked': [4, 1, 25],
  // other people's work
  'table rewritten': [4, 0, 1],
  'owner changes a table': [4, 1, 10],
  'needed column away': [2, 1, 8],
  'source away': [2, 1, 6],
  'long transaction': [4, 5, 40],
  'prepared transactions': [3, 2, 30],
  // paths
  'path cut': [4, 0, 1],
  'path dead': [4, 0, 1],
  'path silent': [4, 2, 25],
  'path slow': [3, 3, 20],
  'path refused': [3, 1, 15],
  // the gateway
  'gateway dead': [2, 1, 20],
  'gateway silent path': [2, 1, 20],
  'gateway faults': [6, 3, 30],
  'gateway clock': [2, 3, 30],
} as const satisfies Record<string, readonly [weight: number, shortest: number, longest: number]>;

export type FaultName = keyof typeof FAULTS;

export interface PlannedFault {
  readonly name: FaultName;
  /** seconds after the round's begin, and how long it lasts */
  readonly at: number;
  readonly seconds: number;
  readonly draws: readonly number[];
}

export interface Round {
  readonly n: number;
  readonly faults: readonly PlannedFault[];
  /** until its last fault is over */
  readonly seconds: number;
}

export interface PlanOptions {
  readonly seed: number;
  readonly minutes: number;
  /** only these */
  readonly only?: readonly FaultName[];
}

/** What a calm takes, about; seconds. */
const CALM_S = 25;
const MOST_FAULTS = 6;
/** Within so many seconds the faults of a round begin. */
const WINDOW_S = 20;

/** The rounds that fill `minutes`, one at least. */
export function planOf({ seed, minutes, only }: PlanOptions): Round[] {
  const rounds: Round[] = [];
  for (let n = 1, seconds = 0; rounds.length === 0 || seconds < minutes * 60; n += 1) {
    const round = roundOf(seed, n, only ?? (Object.keys(FAULTS) as FaultName[]));
    rounds.push(round);
    seconds += round.seconds + CALM_S;
  }
  return rounds;
}

function roundOf(seed: number, n: number, names: readonly FaultName[]): Round {
  const random = seededRandom(seed * 1_000_003 + n * 7_919);
  const count = 1 + Math.floor(random() * MOST_FAULTS);
  // one of two rounds has its faults close together
  const window = WINDOW_S * (random() < 0.5 ? 0.2 : 1);
  const faults = Array.from({ length: count }, () => {
    const name = drawn(names, random());
    const [, shortest, longest] = FAULTS[name];
    // short ones more often than long ones
    const seconds = tenths(shortest + (longest - shortest) * random() ** 2);
    return { name, at: tenths(window * random()), seconds, draws: Array.from({ length: 4 }, random) };
  }).sort((a, b) => a.at - b.at);
  return { n, faults, seconds: Math.max(...faults.map(({ at, seconds }) => at + seconds)) };
}

function drawn(names: readonly FaultName[], point: number): FaultName {
  const total = names.reduce((sum, name) => sum + FAULTS[name][0], 0);
  let left = point * total;
  return names.find((name) => (left -= FAULTS[name][0]) < 0) ?? names[0]!;
}

const tenths = (value: number) => Math.round(value * 10) / 10;

/** A line for each fault, as --replay prints it. */
export function describePlan(rounds: readonly Round[]): string {
  return rounds
    .flatMap(({ n, faults }) =>
      faults.map(({ at, seconds, name, draws }) => {
        const numbers = draws.map((each) => each.toFixed(3)).join(' ');
        return `round ${n}  +${at.toFixed(1)} s  for ${seconds.toFixed(1)} s  ${name}  (${numbers})`;
      }),
    )
    .join('\n');
}

/**
 * The fate of an SMS, drawn when it is sent: a list of status changes, oldest first. The status at a moment is the last change before it. The distribution:
 *
 *   95 %  Delivered: 87 of them log-normal with a median of 4 s (99 of 100 within 26 s), 8 spread evenly on a logarithmic scale from 30 s
 *         to 33 min, so that every latency group of the reports has some
 *    3 %  another final status: Undeliverable, Expired, Rejected, Unaccepted, Deleted
 *    2 %  no final status, ever: Enroute, Accepted, Pending, Unknown
 */
import type { Status } from '../status.ts';

export interface Transition {
  /** one of our statuses, or any other word for the gateway to send */
  readonly status: string;
  /** epoch milliseconds */
  readonly at: number;
}

/** Ordered by time; the first is normally Accepted at the time of sending. */
export type Fate = readonly Transition[];

const MEDIAN_MS = 4_000;
const SIGMA = 0.8;
const TAIL_MS = { from: 30_000, to: 33 * 60_000 };

interface Ending {
  readonly share: number;
  readonly statuses: readonly Status[];
  /** milliseconds from sending to the last of `statuses` */
  readonly duration: (random: () => number) => number;
}

const ENDINGS: readonly Ending[] = [
  { share: 0.8, statuses: ['Accepted', 'Enroute', 'Delivered'], duration: fast },
  { share: 0.07, statuses: ['Accepted', 'Delivered'], duration: fast },
  { share: 0.05, statuses: ['Accepted', 'Enroute', 'Delivered'], duration: spread(TAIL_MS.from, TAIL_MS.to) },
  {
    share: 0.03,
    statuses: ['Accepted', 'Enroute', 'Pending', 'Delivered'],
    duration: spread(TAIL_MS.from, TAIL_MS.to),
  },
  { share: 0.015, statuses: ['Accepted', 'Enroute', 'Undeliverable'], duration: spread(3_000, 600_000) },
  { share: 0.006, statuses: ['Accepted', 'Enroute', 'Expired'], duration: () => 30 * 60_000 },
  { share: 0.004, statuses: ['Accepted', 'Rejected'], duration: spread(200, 5_000) },
  { share: 0.003, statuses: ['Accepted', 'Unaccepted'], duration: spread(200, 5_000) },
  { share: 0.002, statuses: ['Accepted', 'Enroute', 'Deleted'], duration: spread(60_000, 900_000) },
  { share: 0.008, statuses: ['Accepted', 'Enroute'], duration: fast },
  { share: 0.006, statuses: ['Accepted'], duration: () => 0 },
  { share: 0.003, statuses: ['Accepted', 'Enroute', 'Pending'], duration: fast },
  { share: 0.003, statuses: ['Accepted', 'Unknown'], duration: fast },
];

/** Draws the fate of an SMS sent at `sentAt` (epoch ms) from the stated distribution. */
export function drawFate(sentAt: number, random: () => number): Fate {
  const { statuses, duration } = pick(random());
  const total = duration(random);
  const last = statuses.length - 1;
  // Enroute comes early, then the SMS waits for the handset
  return statuses.map((status, step) => ({
    status,
    at: sentAt + Math.round(step === last ? total : total * 0.3 * (step / last)),
  }));
}

function pick(point: number): Ending {
  let sum = 0;
  for (const ending of ENDINGS) {
    sum += ending.share;
    if (point < sum) return ending;
  }
  return ENDINGS[0]!;
}

/** Log-normal, by Box and Muller. */
function fast(random: () => number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return MEDIAN_MS * Math.exp(SIGMA * normal);
}

function spread(from: number, to: number): (random: () => number) => number {
  return (random) => from * (to / from) ** random();
}

/** The change in force at `now` (epoch ms); undefined before the first. */
export function stateAt(fate: Fate, now: number): Transition | undefined {
  return fate.findLast(({ at }) => at <= now);
}

/**
 * A gateway id in one of the three known lengths: 13 digits (most), 7 to 9, or 23 to 25 that begin with the phone, the epoch seconds and
 * the milliseconds. `phone` with or without a plus. Two calls may give the same id: who keeps them draws again.
 */
export function makeGatewayId(phone: string, sentAt: number, random: () => number): string {
  const point = random();
  if (point < 0.1) return digits(7 + Math.floor(random() * 3), random);
  if (point < 0.3) return `${phone.replaceAll(/\D/g, '')}${Math.floor(sentAt / 1000)}${sentAt % 1000}`.slice(0, 25);
  return digits(13, random);
}

function digits(length: number, random: () => number): string {
  const least = 10 ** (length - 1);
  return String(least + Math.floor(random() * 9 * least));
}

/** Faults of the network paths and of the gateway. */
import { FAULT_KINDS } from '../../../src/simulator/faults.ts';
import type { Proxy } from '../../support/proxy.ts';
import { GATEWAY, type Stage } from '../stage.ts';
import { pick, type Doing, type Fault } from './fault.ts';

/** Within these a server ends the session of a client that has vanished: a daemon asks it to, by TCP keepalive, as nobody else ends those of one that was killed. */
export const KEEPALIVE_S = 120;

/** All, or one daemon's. */
function paths({ stage, draws }: Doing): readonly Proxy[] {
  const all = stage.members.map(({ path }) => path);
  return (draws[0] ?? 0) < 0.4 ? all : [pick(all, draws[1])];
}

const refused =
  (which: (doing: Doing) => readonly Proxy[], cuts: (draw: number) => boolean): Fault =>
  async (doing) => {
    const some = which(doing);
    for (const path of some) {
      path.newcomers = 'refused';
      if (cuts(doing.draws[2] ?? 0)) path.cut();
    }
    return async () => {
      for (const path of some) path.newcomers = 'forwarded';
    };
  };
const silent =
  (which: (doing: Doing) => readonly Proxy[]): Fault =>
  async (doing) => {
    const some = which(doing);
    for (const path of some) path.holds = true;
    return async () => {
      for (const path of some) path.holds = false;
    };
  };

const gatewayPath = ({ stage }: Doing) => [stage.gatewayPath];

/** The simulator's own door for faults, as in a rehearsal. */
async function gatewayFaults(stage: Stage, words?: Record<string, number>): Promise<void> {
  const authorization = `Basic ${Buffer.from(`${GATEWAY.login}:${GATEWAY.password}`).toString('base64')}`;
  const response = await fetch(new URL('/faults', stage.gateway.url), {
    method: words === undefined ? 'DELETE' : 'PUT',
    headers: { authorization },
    ...(words === undefined ? {} : { body: JSON.stringify(words) }),
  });
  if (!response.ok) throw new Error(`/faults answered ${response.status}`);
  await response.arrayBuffer();
}

/** After these the date of a status is the time of the write. */
const DATELESS = new Set<string>(['empty-date', 'no-date', 'broken-date', 'bare-rejection']);

export const PATH_FAULTS = {
  'path cut': async (doing) => paths(doing).forEach((path) => path.cut()),
  // every connection of this moment is dead for good, and nobody is told
  'path dead': async (doing) => paths(doing).forEach((path) => path.stall(1_000 * KEEPALIVE_S)),
  'path silent': silent(paths),
  'path slow': async (doing) => {
    const some = paths(doing);
    for (const path of some) path.delayMs = 20 + 1_500 * (doing.draws[2] ?? 0) ** 3;
    return async () => {
      for (const path of some) path.delayMs = 0;
    };
  },
  'path refused': refused(paths, (draw) => draw < 0.7),
  'gateway dead': refused(gatewayPath, () => true),
  'gateway silent path': silent(gatewayPath),
  'gateway faults': async ({ stage, draws }) => {
    const kinds = [pick(FAULT_KINDS, draws[0]), pick(FAULT_KINDS, draws[1])];
    const share = 0.1 + 0.4 * (draws[2] ?? 0);
    if (kinds.includes('unknown-word')) stage.said.unknownWords = true;
    if (kinds.some((kind) => DATELESS.has(kind))) stage.said.dateless = true;
    const more = (draws[3] ?? 0) < 0.3 ? { latency: 300, 'latency-p99': 4_000 } : {};
    await gatewayFaults(stage, { ...Object.fromEntries(kinds.map((kind) => [kind, share])), ...more });
    return () => gatewayFaults(stage, { latency: 0, 'latency-p99': 0 });
  },
  'gateway clock': async ({ stage, draws }) => {
    const skew = Math.round(((draws[0] ?? 0) - 0.5) * pick([4_000, 120_000, 7_200_000], draws[1]));
    stage.said.skews.add(skew);
    await gatewayFaults(stage, { skew });
    return () => gatewayFaults(stage, { skew: 0 });
  },
} satisfies Record<string, Fault>;

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

/** By the simulator's own door for faults, as in a rehearsal; `words` are what it says until `back` takes them back. */
async function gatewayFaults(
  stage: Stage,
  words: Record<string, number>,
  back: Record<string, number>,
): Promise<() => Promise<void>> {
  const authorization = `Basic ${Buffer.from(`${GATEWAY.login}:${GATEWAY.password}`).toString('base64')}`;
  const put = async (body: Record<string, number>) => {
    const request = { method: 'PUT', headers: { authorization }, body: JSON.stringify(body) };
    const response = await fetch(new URL('/faults', stage.gateway.url), request);
    if (!response.ok) throw new Error(`/faults answered ${response.status}`);
    await response.arrayBuffer();
  };
  const said = { words, from: Date.now(), until: Infinity };
  stage.said.push(said);
  await put(words);
  return async () => {
    await put(back);
    said.until = Date.now();
  };
}

/** Nobody sends an SMS by it here that it could refuse. */
const KINDS = FAULT_KINDS.filter((kind) => kind !== 'reject');

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
    const kinds = [pick(KINDS, draws[0]), pick(KINDS, draws[1])];
    const share = 0.1 + 0.4 * (draws[2] ?? 0);
    const more = (draws[3] ?? 0) < 0.3 ? { latency: 300, 'latency-p99': 4_000 } : {};
    const words = { ...Object.fromEntries(kinds.map((kind) => [kind, share])), ...more };
    return await gatewayFaults(stage, words, { latency: 0, 'latency-p99': 0 });
  },
  'gateway clock': async ({ stage, draws }) => {
    const skew = Math.round(((draws[0] ?? 0) - 0.5) * pick([4_000, 120_000, 7_200_000], draws[1]));
    return await gatewayFaults(stage, { skew }, { skew: 0 });
  },
} satisfies Record<string, Fault>;

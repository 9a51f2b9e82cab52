/**
 * Plays a plan: in each round the faults of the plan, at their times and beside each other, over a workload that never stops; then everything is taken back, and in
 * the calm every invariant is checked. What is wrong is told at once, with the round.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DO } from './faults/all.ts';
import { stubbornly } from './faults/fault.ts';
import { LAST, NOW, seen, SOON, within, WELL } from './invariants.ts';
import type { FaultName, PlannedFault, Round } from './plan.ts';
import type { Report } from './report.ts';
import { buildStage, type Stage, type StageOptions } from './stage.ts';
import { startWatch } from './watch.ts';
import { startWorkload, type Workload } from './workload.ts';

export interface CampaignOptions extends StageOptions {
  readonly rounds: readonly Round[];
  readonly say: (line: string) => void;
}

/** Breaches of a round that differ in numbers alone. */
const ALIKE = 5;

/** Plays `rounds`; ends early after a round with breaches, whose logs are then kept. */
export async function runCampaign(options: CampaignOptions): Promise<Report> {
  const { rounds, say, seed } = options;
  const began = performance.now();
  const stage = await buildStage(options);
  const breaches: string[] = [];
  const faults = new Map<FaultName, { done: number; failed: readonly string[] }>();
  const slowest = new Map<string, number>();
  let round = 0;
  let checks = 0;
  const breach = (what: string) => {
    const line = `round ${round}: ${what}`;
    // a counter that goes back every second would leave no room for others
    const alike = breaches.filter((each) => unnumbered(each) === unnumbered(line));
    if (alike.length >= ALIKE || alike.includes(line) || breaches.length > 50) return;
    breaches.push(line);
    say(`BREACH  ${line}`);
  };
  // daemons must not outlive this process, whatever ends it
  const lastResort = () => stage.members.forEach(({ daemon }) => daemon?.kill('SIGKILL'));
  process.prependOnceListener('exit', lastResort);
  const watch = startWatch(stage, breach);
  const workload = startWorkload(stage, seed);
  stage.members.forEach((member) => member.start());
  let kept: string | undefined;
  try {
    for (const what of await within(120 * slowness(), () => WELL(stage, workload))) breach(`the start: ${what}`);
    for (const each of rounds) {
      round = each.n;
      say(
        `round ${each.n}: ${each.faults.map(({ name, at, seconds }) => `${name} (+${at} s, ${seconds} s)`).join(', ')}`,
      );
      const told = (name: FaultName, failure?: string) => {
        const { done, failed } = faults.get(name) ?? { done: 0, failed: [] };
        faults.set(name, failure === undefined ? { done: done + 1, failed } : { done, failed: [...failed, failure] });
        if (failure !== undefined) say(`  ${name} could not be done: ${failure}`);
      };
      await storm(stage, each, told, breach);
      const look = { ...NOW, ...(each === rounds.at(-1) ? LAST : {}) };
      checks += await calm({ stage, workload, breach, slowest, say }, look);
      if (breaches.length > 0) break;
    }
  } catch (error) {
    breach(`the harness failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  } finally {
    await workload.stop();
    await watch.stop();
    if (breaches.length > 0) kept = keepLogs(stage);
    await stage.close();
    process.off('exit', lastResort);
  }
  return {
    minutes: (performance.now() - began) / 60_000,
    rounds: round,
    version: stage.version,
    faults,
    checks,
    slowest,
    workload: { ...workload.done, failed: workload.failed, confirmed: workload.confirmed.size },
    said: stage.said.flatMap(({ words }) => Object.keys(words)),
    figures: watch.figures,
    breaches,
    kept,
  };
}

/** After these the stream may have passed rows over that only an audit finds; after others of slot and checkpoint a reconcile is marked before it can. */
const PASSES_OVER = /^slot (?:made again|advanced|consumed)$|^publication |^(?:needed column|source) away$/;

async function storm(
  stage: Stage,
  { faults }: Round,
  told: (name: FaultName, failure?: string) => void,
  breach: (what: string) => void,
): Promise<void> {
  const began = performance.now();
  const one = async ({ name, at, seconds, draws }: PlannedFault) => {
    await delay(at * 1000);
    stage.mayLack ||= PASSES_OVER.test(name);
    let undo: (() => Promise<unknown>) | void;
    try {
      undo = await DO[name]({ stage, draws, seconds });
    } catch (error) {
      return told(name, reason(error));
    }
    told(name);
    await delay(Math.max(0, (at + seconds) * 1000 - (performance.now() - began)));
    await undo?.().catch((error: unknown) => breach(`${name} could not be taken back: ${reason(error)}`));
  };
  await Promise.all(faults.map(one));
  await stage.ensureServer();
  for (const member of stage.members) {
    if (member.frozen) member.thaw();
    member.start();
  }
}

const reason = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** How many times longer than on a machine of its own all takes here, about: others may use it, too. */
function slowness(): number {
  return Math.min(12, Math.max(1, loadavg()[0]! / availableParallelism()));
}

/** How many looks it were. */
interface Calm {
  readonly stage: Stage;
  readonly workload: Workload;
  readonly breach: (what: string) => void;
  readonly slowest: Map<string, number>;
  readonly say: (line: string) => void;
}

async function calm({ stage, workload, breach, slowest, say }: Calm, now: typeof NOW): Promise<number> {
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  seen.clear();
  await workload.pause();
  // what their sessions could not end
  await stubbornly(async () => {
    const left = await stage.sql<{ gid: string }[]>`select gid from pg_prepared_xacts`;
    for (const { gid } of left) await stage.sql.unsafe(`commit prepared '${gid}'`);
  });
  for (const [name, [seconds, look]] of Object.entries(SOON)) {
    let told = 10;
    const wrong = await within(seconds * slowness() - passed(), async () => {
      const now = await look(stage, workload);
      if (now.length > 0 && passed() > told) say(`  after ${passed().toFixed(0)} s of the calm: ${now.join('; ')}`);
      if (passed() > told) told += 20;
      return now;
    });
    slowest.set(name, Math.max(slowest.get(name) ?? 0, passed()));
    for (const what of wrong) breach(`not within ${seconds} s: ${name}: ${what}`);
  }
  for (const [name, look] of Object.entries(now)) {
    const wrong = await within(0, () => look(stage, workload));
    for (const what of wrong) breach(`${name}: ${what}`);
  }
  stage.mayLack = false;
  workload.resume();
  return Object.keys(SOON).length + Object.keys(now).length;
}

/** What the daemons and the server said, for whoever looks for the reason. */
function keepLogs(stage: Stage): string {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-chaos-'));
  mkdirSync(directory, { recursive: true });
  for (const { name, processes } of stage.members) {
    processes.forEach((process, n) => {
      writeFileSync(
        join(directory, `${name.replace(' ', '-')}.${n + 1}.log`),
        `${process.lines.join('\n')}\n${process.stderr()}`,
      );
    });
  }
  writeFileSync(join(directory, 'server.log'), stage.serverLines.join('\n'));
  return directory;
}

const unnumbered = (text: string) => text.replaceAll(/\d+/g, '');

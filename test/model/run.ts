/** `npm run model`: explores every world, the large ones too, and each mistake; says how many states there are. */
import { wordsOf } from '../support/words.ts';
import { explore } from './explore.ts';
import { LARGE, TRAPS, trapWorld, WORLDS } from './worlds.ts';
import type { Trap } from './world.ts';

wordsOf(import.meta.filename, {});
const say = (line: string) => process.stdout.write(`${line}\n`);
const seconds = () => process.cpuUsage().user / 1e6;

for (const world of [...WORLDS, ...LARGE]) {
  const began = seconds();
  const { states, calm, wrong } = explore(world);
  const took = (seconds() - began).toFixed(1);
  say(`${world.name}: ${states} states, ${calm} calm, ${took} s: ${wrong === undefined ? 'holds' : wrong.what}`);
  for (const step of wrong?.steps ?? []) say(`  ${step}`);
  if (wrong !== undefined) process.exitCode = 1;
}
for (const trap of Object.keys(TRAPS) as Trap[]) {
  const { states, wrong } = explore(trapWorld(trap), trap);
  say(
    `${trap}: ${wrong === undefined ? 'NOT FOUND' : wrong.what}, after ${states} states and ${wrong?.steps.length} steps`,
  );
  if (wrong === undefined) process.exitCode = 1;
}

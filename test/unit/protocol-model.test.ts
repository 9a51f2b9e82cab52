/** The exactly-once protocol, explored in every state of small worlds: never missing, never doubled, nothing acknowledged that is not durable. */
import { expect, test } from 'vitest';
import { explore } from '../model/explore.ts';
import { TRAPS, trapWorld, WORLDS } from '../model/worlds.ts';
import type { Trap } from '../model/world.ts';

test.each(WORLDS)('the protocol holds in every state: $name', (world) => {
  const { states, calm, wrong } = explore(world);
  expect(wrong).toBeUndefined();
  expect(states).toBeGreaterThan(500);
  expect(calm).toBeGreaterThan(0);
});

test.each(Object.keys(TRAPS) as Trap[])('the exploration finds a mirror that %s, and nothing without it', (trap) => {
  const { wrong } = explore(trapWorld(trap), trap);
  expect(wrong?.what).toMatch(/missing|durable|doubled|copied|not in the log|did not tell|never becomes calm/);
  expect(explore(trapWorld(trap)).wrong).toBeUndefined();
});

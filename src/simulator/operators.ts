/**
 * An operator's outage: an SMS that is sent to it meanwhile keeps its status, and continues after the outage as if it had been sent then.
 */
import { isFinal, statusOfWord } from '../status.ts';
import type { Fate, Transition } from './fate.ts';
import { inForce, type Faults } from './faults.ts';
import type { Truth } from './truth.ts';

export interface Operators {
  /** The fate at this moment. */
  hold(id: string, phone: string, fate: Fate, faults: Faults): Fate;
  /** Continues the SMS whose operator works again. */
  release(faults: Faults): void;
}

interface Held {
  readonly operator: string;
  readonly fate: Fate;
}

export function createOperators(truth: Truth, now: () => number): Operators {
  const held = new Map<string, Held>();
  let lastOut: readonly string[] = [];
  const outNow = (faults: Faults) => (inForce(faults, now()) ? (faults.operators ?? NONE) : NONE);
  return {
    hold(id, phone, fate, faults) {
      const number = phone.replaceAll(/\D/g, '');
      const operator = outNow(faults).find((each) => number.startsWith(each));
      if (operator === undefined) return fate;
      held.set(id, { operator, fate });
      lastOut = outNow(faults);
      return fate.filter((step) => !isLast(step));
    },
    release(faults) {
      if (held.size === 0) return;
      const out = outNow(faults);
      // called for each request: does nothing while nothing changes
      if (out === lastOut) return;
      lastOut = out;
      for (const [id, { operator, fate }] of held) {
        if (out.includes(operator)) continue;
        held.delete(id);
        const late = now() - (fate[0]?.at ?? now());
        truth.set(
          id,
          fate.map((step) => (isLast(step) ? { status: step.status, at: step.at + late } : step)),
        );
      }
    },
  };
}

const NONE: readonly string[] = [];

function isLast({ status }: Transition): boolean {
  return isFinal(statusOfWord(status) ?? 'Unknown');
}

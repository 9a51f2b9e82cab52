/** How long the SMS of the past that came with a first copy will be asked for, by how fast they became fewer in the last minute. */
export interface Settling {
  /** `left` SMS at `at`, in Unix seconds. Minutes, at least 1; null: none are left, or it is not known yet */
  minutes(left: number, at: number): number | null;
}

/** What is older says nothing of the rate now; of a shorter time there is none. */
const WINDOW_SECONDS = 60;
const LEAST_SECONDS = 5;

export function createSettling(): Settling {
  let seen: readonly { readonly left: number; readonly at: number }[] = [];
  return {
    minutes(left, at) {
      if (left === 0) seen = [];
      // more of them than before: another copy began
      else if (left > (seen.at(-1)?.left ?? 0)) seen = [{ left, at }];
      else seen = [...seen.filter((each) => each.at >= at - WINDOW_SECONDS && each.at < at), { left, at }];
      const first = seen[0];
      if (first === undefined || at - first.at < LEAST_SECONDS || first.left === left) return null;
      return Math.max(1, Math.ceil((left * (at - first.at)) / (first.left - left) / 60));
    },
  };
}

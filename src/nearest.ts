/** The nearest of the words that are known: for a flag, a command or a parameter that is misspelt. */

/** The candidate that takes the fewest edits to reach; the first of equals. `candidates` is not empty. */
export function nearest(word: string, candidates: readonly string[]): string {
  const ranked = candidates.map((candidate) => ({ candidate, edits: editDistance(word, candidate) }));
  return ranked.reduce((best, each) => (each.edits < best.edits ? each : best)).candidate;
}

/** The same, where it is so near that it may be meant: it takes `most` edits, or the word is its beginning. */
export function near(
  word: string,
  candidates: readonly string[],
  most = Math.max(1, word.length / 3),
): string | undefined {
  const begun = word.length > 1 ? candidates.find((each) => each.startsWith(word)) : undefined;
  const best = begun ?? nearest(word, candidates);
  return begun !== undefined || editDistance(word, best) <= most ? best : undefined;
}

/** Levenshtein: insertions, deletions and substitutions that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Text for a terminal: lines of at most `width`, broken at blanks; all but the first begin with `indent` blanks. A word that is longer stands in a line of its own. */
export function wrap(text: string, width: number, indent = 0): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > width) {
    const least = Math.max(rest.search(/\S/), lines.length === 0 ? 0 : indent);
    const last = rest.lastIndexOf(' ', width);
    const at = last > least ? last : rest.indexOf(' ', width);
    if (at === -1) break;
    lines.push(rest.slice(0, at).trimEnd());
    rest = ' '.repeat(indent) + rest.slice(at + 1);
  }
  return [...lines, rest];
}

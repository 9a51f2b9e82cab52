/** Text for a terminal. */

/** Lines of at most `width`, broken at blanks; all but the first begin with `indent` blanks. A word that is longer stands in a line of its own. */
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

/**
 * A help text for a terminal of `width`. Paragraphs that are too wide flow; a line that begins with blanks is a row of two columns or an example, and goes
 * on under its second column.
 */
export function flow(text: string, width: number): string {
  const blocks: string[][] = [];
  for (const line of text.split('\n')) {
    const last = blocks.at(-1)?.[0];
    if (last === undefined || /^( |$)/.test(line) || /^( |$)/.test(last)) blocks.push([line]);
    else blocks.at(-1)!.push(line);
  }
  return blocks
    .flatMap((lines) => {
      if (lines.every((line) => line.length <= width)) return lines;
      const [column = ''] = /^ +\S+(?: [A-Z]+)? +/.exec(lines[0]!) ?? [];
      return wrap(lines.join(' '), width, column.length);
    })
    .join('\n');
}

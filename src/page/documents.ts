/**
 * The documents that the page sends its readers to, served from the daemon's own docs/: its addresses are the paths that log lines and alerts name.
 * Markdown becomes HTML as far as these documents use it: headings, paragraphs, lists, tables, blocks of code; a test holds that none of it is left over.
 */
import { readFileSync } from 'node:fs';
import { ROOT } from '../package.ts';
import { documentHead, policyOf } from './head.ts';
import { escape } from './wording.ts';
import { STYLE } from './style.ts';

const NAMES = [
  'docs/runbook.md',
  'docs/operations.md',
  'docs/reference.md',
  'docs/queries.md',
  'docs/design.md',
  'docs/benchmarks.md',
  'SECURITY.md',
] as const;

const DOCUMENT_STYLE = `${STYLE}
.document { max-width: 56rem; } .document > * { margin: .6rem 0; } .document h1 { font-size: 1.6rem; color: inherit; } .document h2 { font-size: 1.25rem; margin-top: 2rem; } .document h3 { margin-top: 1.5rem; }
.document :target { border-left: 4px solid var(--on-time); padding-left: .6rem; } .document li { margin-left: 1.4rem; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; } pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; } pre code { overflow-wrap: normal; }
.document th, .document td { text-align: left; white-space: normal; vertical-align: top; }
`;

export const DOCUMENT_POLICY = policyOf(DOCUMENT_STYLE);

/** What is served, by path: `/docs/runbook.md` and so on. */
export function documents(): ReadonlyMap<string, () => string> {
  return new Map(
    NAMES.map((name) => [`/${name}`, () => documentPage(name, readFileSync(new URL(name, ROOT), 'utf8'))]),
  );
}

/** Where the runbook has a heading, as the page links to it. */
export function runbookLink(heading: string): string {
  return `docs/runbook.md#${anchorOf(heading)}`;
}

/** As GitHub makes it of a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

function documentPage(name: string, text: string): string {
  const home = name.startsWith('docs/') ? '../' : './';
  return `${documentHead(/^# (.+)$/m.exec(text)?.[1] ?? name, DOCUMENT_STYLE)}
<main class="page document">
<p><a href="${home}">The SMS channel</a></p>
${htmlOf(text)}
</main>
</body>
</html>
`;
}

/** Markdown as HTML, block by block. */
export function htmlOf(text: string): string {
  return blocksOf(text.trimEnd().split('\n'));
}

const ITEM = /^(?:- |\d+\. )/;

function blocksOf(lines: readonly string[]): string {
  const html: string[] = [];
  let at = 0;
  /** the lines from here on that `belong`, which are passed */
  const take = (belongs: (line: string, index: number) => boolean): string[] => {
    const from = at;
    while (at < lines.length && belongs(lines[at]!, at - from)) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at]!;
    const heading = /^(#+) (.+)$/.exec(line);
    if (line.startsWith('```')) {
      at += 1;
      html.push(`<pre tabindex="0"><code>${escape(take((each) => !each.startsWith('```')).join('\n'))}</code></pre>`);
      at += 1;
    } else if (heading !== null) {
      const [, { length }, title] = heading as unknown as [string, string, string];
      html.push(`<h${length} id="${anchorOf(title)}">${inline(title)}</h${length}>`);
      at += 1;
    } else if (line.startsWith('|')) html.push(table(take((each) => each.startsWith('|'))));
    else if (ITEM.test(line)) html.push(list(take((each) => ITEM.test(each) || /^( {2,}|$)/.test(each))));
    else if (line === '') at += 1;
    else html.push(`<p>${inline(take((each) => !/^(```|#|\||$)/.test(each) && !ITEM.test(each)).join('\n'))}</p>`);
  }
  return html.join('\n');
}

/** Items with what stands indented under them; only those of one kind in a row. */
function list(lines: readonly string[]): string {
  const kind = lines[0]!.startsWith('- ') ? 'ul' : 'ol';
  const items: string[][] = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push([line.replace(ITEM, '')]);
    else items.at(-1)!.push(line.replace(/^ {2,3}/, ''));
  }
  return `<${kind}>${items.map((item) => `<li>${blocksOf(item).replace(/^<p>([^]*?)<\/p>/, '$1')}</li>`).join('\n')}</${kind}>`;
}

function table(lines: readonly string[]): string {
  const [head = [], , ...rows] = lines.map((line) =>
    line
      .replace(/^\||\|$/g, '')
      .split(/(?<!\\)\|/)
      .map((cell) => inline(cell.trim().replaceAll('\\|', '|'))),
  );
  return `<div class="scroll" tabindex="0"><table><thead>${row(head, 'th')}</thead><tbody>${rows.map((cells) => row(cells, 'td')).join('\n')}</tbody></table></div>`;
}

const row = (cells: readonly string[], tag: string) =>
  `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join('')}</tr>`;

/** Code is set aside first: what looks like a mark within it is none. */
function inline(text: string): string {
  const codes: string[] = [];
  const bare = text.replace(/`([^`]+)`/g, (_, code: string) => `\ue000${codes.push(code) - 1}\ue000`);
  return escape(bare)
    .replace(/\[([^\]]+)\]\(([^)\s]+)\)/g, (_, words: string, target: string) => link(words, target))
    .replace(/\*\*([^*]+)\*\*/g, '<strong>$1</strong>')
    .replace(/(?<![\w/])_([^_]+)_(?!\w)/g, '<em>$1</em>')
    .replace(/\ue000(\d+)\ue000/g, (_, n: string) => `<code>${escape(codes[Number(n)]!)}</code>`);
}

/** A link to what is served, or to elsewhere; of any other file the words alone. */
function link(words: string, target: string): string {
  const [path = ''] = target.split('#', 1);
  const served =
    path === '' || /^https?:/.test(path) || NAMES.some((name) => name.endsWith(path.replace(/^(\.\.\/)+/, '')));
  return served ? `<a href="${target}">${words}</a>` : words;
}

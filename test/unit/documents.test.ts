import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ERROR_CODES } from '../../src/errors.ts';
import { documents, htmlOf, runbookLink } from '../../src/page/documents.ts';

const pages = [...documents()].map(([path, page]) => [path, page()] as const);

test.each(pages)('%s: no mark of Markdown is left over, and nothing comes from elsewhere', (_, html) => {
  const text = html.replace(/<style>[^]*?<\/style>|<code>[^]*?<\/code>|<h\d[^]*?<\/h\d>/g, '').replace(/<[^>]*>/g, '');
  expect(text.match(/^(#|- |\d+\. |\||```).*|.*(\*\*|\]\(|`).*/gm) ?? []).toEqual([]);
  expect(html).not.toMatch(/ src=|<script| on[a-z]+=/);
});

test('every link within the documents leads to what is served', () => {
  const served = new Map(
    pages.map(([path, html]) => [path, new Set([...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id))]),
  );
  const broken = pages.flatMap(([path, html]) =>
    [...html.matchAll(/href="([^"]+)"/g)]
      .map(([, href]) => new URL(href!, `http://daemon${path}`))
      .filter(({ host, pathname, hash }) => {
        if (host !== 'daemon' || pathname === '/') return false;
        const ids = served.get(pathname);
        return ids === undefined || (hash !== '' && !ids.has(decodeURIComponent(hash.slice(1))));
      })
      .map(({ href }) => `${path}: ${href}`),
  );
  expect(broken).toEqual([]);
  expect(served.get('/docs/runbook.md')?.size).toBeGreaterThan(50);
});

test('what the page can name has its place in the runbook', () => {
  const verdicts = [...readFileSync('src/page/verdict.ts', 'utf8').matchAll(/'(Smslogd\w+)'/g)].map(
    ([, alert]) => alert!,
  );
  const html = documents().get('/docs/runbook.md')!();
  expect(verdicts.length).toBeGreaterThan(5);
  for (const each of [...verdicts, ...ERROR_CODES]) expect(html).toContain(` id="${runbookLink(each).split('#')[1]}"`);
});

test('text is escaped, code within a line is not marked, and lists keep what is indented under them', () => {
  expect(htmlOf('a <b> & `x_y_z **no**` **yes** _em_')).toBe(
    '<p>a &lt;b&gt; &amp; <code>x_y_z **no**</code> <strong>yes</strong> <em>em</em></p>',
  );
  expect(htmlOf('- one\n  more\n\n  ```sh\n  run < in\n  ```\n- two\n\nafter')).toBe(
    '<ul><li>one\nmore\n<pre tabindex="0"><code>run &lt; in</code></pre></li>\n<li>two</li></ul>\n<p>after</p>',
  );
  expect(htmlOf('| a | b |\n|---|---|\n| `x` | [y](z.md) |')).toContain('<td><code>x</code></td><td>y</td>');
});

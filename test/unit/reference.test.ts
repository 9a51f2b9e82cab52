/** docs/reference.md is written by this test from the program itself: `npx vitest run --project unit test/unit/reference.test.ts -u`. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.ts';
import { createMetrics } from '../../src/metrics.ts';
import { settingsMarkdown } from '../../src/settings-shown.ts';

const HEAD = `# Reference

Generated from the program. Do not edit it: change the program, then run \`npx vitest run --project unit test/unit/reference.test.ts -u\`.
`;
const EXIT_CODES = `Exit codes: 0 success, 1 failure, 2 usage error. A failure prints a sentence and, after \`Try:\`, a hint.`;
const SETTINGS = `Settings come from the environment. \`NAME_FILE\` names a file that holds the value of \`NAME\`; use it for secrets. \`smslogd config --markdown\` prints
this table.`;
const METRICS = `\`/metrics\` answers in the text format of Prometheus, or in OpenMetrics where the client accepts it. The help text ends with the origin of the value.
\`database\`: the same in every daemon, and absent until it was read; take the maximum. \`process\`: counted by this process; take the sum unless the help text says otherwise.`;

async function help(words: readonly string[]): Promise<string> {
  const lines: string[] = [];
  const io = { env: {}, print: (line: string) => lines.push(line), complain: () => {}, stdoutIsTerminal: false };
  expect(await commandLine([...words, '--help'], io)).toBe(0);
  return lines.join('\n');
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

test('the reference has every command, setting and metric as the program has it', async () => {
  const commands = [...(await help([])).matchAll(/^ {2}(\w+) +(.+)$/gm)].map((row) => [row[1]!, row[2]!] as const);
  expect(commands.length).toBeGreaterThan(8);
  const helps = await Promise.all(commands.map(([name]) => help([name])));
  const metrics = await createMetrics('0').registry.getMetricsAsJSON();
  const labels = new Map(
    createMetrics('0')
      .registry.getMetricsAsArray()
      .map((metric) => [metric.name, (metric as unknown as { labelNames: string[] }).labelNames]),
  );
  const reference = [
    HEAD,
    '## Commands\n',
    table(
      ['command', 'does'],
      commands.map(([name, summary]) => [`[\`${name}\`](#smslogd-${name})`, summary]),
    ),
    `\n${EXIT_CODES}`,
    ...commands.map(([name], i) => `\n### smslogd ${name}\n\n\`\`\`text\n${helps[i]}\n\`\`\``),
    `\n## Settings\n\n${SETTINGS}\n`,
    settingsMarkdown(),
    `\n## Metrics\n\n${METRICS}\n`,
    table(
      ['metric', 'type', 'labels', 'help'],
      metrics.map(({ name, type, help: about }) => [`\`${name}\``, String(type), labels.get(name)!.join(', '), about]),
    ),
    '',
  ].join('\n');
  await expect(reference).toMatchFileSnapshot('../../docs/reference.md');
  // it loads every command
}, 120_000);

test('every command and flag that the documents name is there', async () => {
  const reference = readFileSync('docs/reference.md', 'utf8');
  const pages = ['README.md', 'SECURITY.md', ...readdirSync('docs').map((name) => `docs/${name}`)];
  const named = pages
    .filter((page) => page.endsWith('.md') && !page.endsWith('reference.md'))
    .flatMap((page) => [
      ...readFileSync(page, 'utf8').matchAll(
        /(?<=^|`| )smslogd ([a-z]+)((?: --?[a-z0-9-]+(?:[ =][^-`| ][^`| ]*)?)*)/gm,
      ),
    ])
    .filter((row) => row[0].includes('--') || /`/.test(row.input[row.index - 1] ?? ''));
  expect(named.length).toBeGreaterThan(30);
  const unknown = named.filter(([, command, flags]) => {
    const help = reference.split(/^### /m).find((part) => part.startsWith(`smslogd ${command}\n`));
    return help === undefined || [...flags!.matchAll(/--[a-z0-9-]+/g)].some(([flag]) => !help.includes(`${flag} `));
  });
  expect(unknown.map(([words]) => words)).toEqual([]);
});

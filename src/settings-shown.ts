/** The settings as they are shown: in force, documented, and those that look like ours and are none. */
import { maskAddress } from './masking.ts';
import { near, nearest } from './nearest.ts';
import { settingNames, settingOf, type Read, type SettingName } from './settings.ts';

type Shown = string | number | readonly string[] | undefined;

/** A value as it may be shown: of a secret that is set, and of what may be one within an address, `****`; null: nothing is set. */
function shown(name: SettingName, value: Shown): string | null {
  if (value === undefined) return null;
  if (settingOf(name).secret === true) return '****';
  const text = String(value);
  return name.endsWith('_URL') ? maskAddress(text) : text;
}

/** The settings in force, each with its value; those that are wrong, and what looks like a setting and is none, with a sentence. */
export function settingsJson({ values, wrong }: Read, env: NodeJS.ProcessEnv) {
  const settings = settingNames().map((name) => [name, shown(name, values[name] as Shown)]);
  return {
    settings: Object.fromEntries(settings) as Record<string, string | null>,
    wrong: Object.fromEntries(wrong),
    unknown: Object.fromEntries(unknownSettings(env).map(({ name, sentence }) => [name, sentence])),
  };
}

/** The same as `NAME=value` lines; what is wrong is marked with `!`, in its place. */
export function describeSettings(read: Read, env: NodeJS.ProcessEnv): string {
  const { settings, wrong, unknown } = settingsJson(read, env);
  const rows = Object.entries(settings).map(([name, value]) => {
    const [by, sentence] =
      [name, `${name}_FILE`].map((each) => [each, wrong[each]]).find(([, each]) => each !== undefined) ?? [];
    return sentence === undefined ? `${name}=${value ?? ''}` : `! ${by}: ${sentence}`;
  });
  const others = Object.entries(wrong).filter(
    ([name]) => !(name in settings) && !(name.replace(/_FILE$/, '') in settings),
  );
  return [...rows, ...[...others, ...Object.entries(unknown)].map(([name, sentence]) => `! ${name}: ${sentence}`)].join(
    '\n',
  );
}

/** To shorter names of others much is near. */
const LONG = 8;
/** Variables that begin like ours and are others'. */
const FOREIGN = /^(HTTP_PROXY|SOURCE_DATE_EPOCH|\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_\w+)?))$/;

/** Names in `env` that begin like one of our settings, or are nearly one, and are none. */
export function unknownSettings(env: NodeJS.ProcessEnv): { readonly name: string; readonly sentence: string }[] {
  const known = settingNames().flatMap((name): string[] => [name, `${name}_FILE`]);
  const beginnings = new Set(settingNames().flatMap((name) => (name.includes('_') ? [name.split('_', 1)[0]] : [])));
  return Object.keys(env)
    .filter((name) => env[name] !== '' && !known.includes(name) && !FOREIGN.test(name))
    .filter(
      (name) => beginnings.has(name.split('_', 1)[0]) || (name.length >= LONG && near(name, known, 2) !== undefined),
    )
    .sort()
    .map((name) => ({ name, sentence: `is no setting of smslogd; the nearest is ${nearest(name, known)}` }));
}

/** The settings as the Markdown table of the reference. */
export function settingsMarkdown(): string {
  const rows = settingNames().map((name) => {
    const { initial, about } = settingOf(name);
    return `| \`${name}\` | ${initial === undefined ? '' : `\`${initial}\``} | ${about} |`;
  });
  return ['| setting | default | |', '|---|---|---|', ...rows].join('\n');
}

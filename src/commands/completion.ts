import { allCommands } from './list.ts';
import type { Command } from './command.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

type Described = readonly [word: string, about: string];

export const command: Command = {
  summary: 'prints the completion of commands and flags for a shell',
  details: [
    'bash: source <(smslogd completion bash)',
    'zsh:  source <(smslogd completion zsh)',
    'fish: smslogd completion fish | source',
  ].join('\n'),
  choice: { name: 'SHELL', of: SHELLS },
  run: async ({ SHELL: shell }, { print }) => {
    const all = await allCommands();
    print(SCRIPTS[shell as (typeof SHELLS)[number]](all));
    return 0;
  },
};

const SCRIPTS: Readonly<Record<(typeof SHELLS)[number], (all: readonly [string, Command][]) => string>> = {
  bash: (all) => `_smslogd() {
  local words="${[...all, ...PROGRAM].map(([word]) => word).join(' ')}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
${all
  .map(
    ([name, each]) =>
      `      ${name}) words="${wordsOf(each)
        .map(([word]) => word)
        .join(' ')}" ;;`,
  )
  .join('\n')}
      *) words="" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _smslogd smslogd`,

  // read by source, or as a file of fpath, which is the function's body
  zsh: (all) => `#compdef smslogd
_smslogd() {
  local -a found
  if (( CURRENT == 2 )); then
    found=(${[...all.map(([name, { summary }]): Described => [name, summary]), ...PROGRAM].map(zshWord).join(' ')})
  else
    case $words[2] in
${all.map(([name, each]) => `      ${name}) found=(${wordsOf(each).map(zshWord).join(' ')}) ;;`).join('\n')}
    esac
  fi
  _describe smslogd found
}
if [[ \${funcstack[1]} == _smslogd ]]; then
  _smslogd "$@"
else
  (( \${+functions[compdef]} )) || { autoload -Uz compinit && compinit }
  compdef _smslogd smslogd
fi`,

  fish: (all) =>
    [
      'complete -c smslogd -f',
      ...all.map(
        ([name, { summary }]) => `complete -c smslogd -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`,
      ),
      ...PROGRAM.map((word) => fishWord('__fish_use_subcommand', word)),
      ...all.flatMap(([name, each]) =>
        wordsOf(each).map((word) => fishWord(`'__fish_seen_subcommand_from ${name}'`, word)),
      ),
    ].join('\n'),
};

/** What the program takes instead of a command. */
const PROGRAM: readonly Described[] = [
  ['--help', 'all commands'],
  ['--version', 'the version'],
];

/** What may follow a command. */
function wordsOf({ flags = {}, choice }: Command): Described[] {
  return [
    ...(choice?.of ?? []).map((word): Described => [word, choice?.name ?? '']),
    ...Object.entries(flags).map(([name, { about }]): Described => [`--${name}`, about]),
    ['--help', 'what the command does'],
  ];
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const zshWord = ([word, about]: Described) => quoted(`${word}:${about}`);
const fishWord = (when: string, [word, about]: Described) =>
  `complete -c smslogd -n ${when} ${word.startsWith('--') ? `-l ${word.slice(2)}` : `-a ${word}`} -d ${quoted(about)}`;

import { describeConfig, loadConfig, settingsMarkdown } from '../settings.ts';
import type { Command } from './command.ts';

export const command: Command = {
  summary: 'prints the settings in force, secrets masked',
  flags: { markdown: { type: 'boolean', about: 'prints all settings as the table in docs/reference.md' } },
  run: async ({ markdown }, { env, print }) => {
    print(markdown === true ? settingsMarkdown() : describeConfig(loadConfig(env)));
    return 0;
  },
};

import { readSettings } from '../settings.ts';
import { describeSettings, settingsJson, settingsMarkdown } from '../settings-shown.ts';
import type { Command } from './command.ts';

export const command: Command = {
  summary: 'prints the settings in force, secrets masked; those that are wrong are marked',
  details: 'Exits 1 if a setting is wrong. An unknown name is printed with the nearest setting.',
  flags: {
    json: { type: 'boolean', about: 'as one JSON object' },
    markdown: { type: 'boolean', about: 'prints all settings as the table in docs/reference.md' },
  },
  run: async ({ json, markdown }, { env, print }) => {
    if (markdown === true) {
      print(settingsMarkdown());
      return 0;
    }
    const read = readSettings(env);
    print(json === true ? JSON.stringify(settingsJson(read, env), null, 2) : describeSettings(read, env));
    return read.wrong.size === 0 ? 0 : 1;
  },
};

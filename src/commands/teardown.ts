import { loadConfig } from '../config.ts';
import type { Command } from './command.ts';

export const command: Command = {
  summary: 'drops the slot and the publication, so that nothing holds WAL; keeps the log',
  run: async (_flags, { env }) => {
    loadConfig(env, ['database']);
    return 1;
  },
};

import type { Command } from './command.ts';

export const command: Command = {
  summary: 'checks settings, PostgreSQL and the gateway; a line each, with the fix for what fails',
  flags: { json: { type: 'boolean', about: 'prints the checks as JSON' } },
  run: async () => 1,
};

import { readFileSync } from 'node:fs';
import { ROOT } from '../package.ts';
import type { Command } from './command.ts';

const ROLES = new URL('sql/roles.sql', ROOT);

export const command: Command = {
  summary: 'prints the SQL that creates the roles, for an administrator of PostgreSQL',
  details: 'smslogd roles | psql -v ON_ERROR_STOP=1 -d DATABASE',
  run: async (_, { print }) => {
    print(readFileSync(ROLES, 'utf8').trimEnd());
    return 0;
  },
};

import { loadConfig } from '../settings.ts';
import { dryRun, migrate } from '../schema/migrate.ts';
import { toSmslogdError } from '../errors.ts';
import type { Command } from './command.ts';

export const command: Command = {
  summary: 'creates or upgrades what smslogd owns in the database',
  details:
    'Run it as the owner of the source table. Safe to run twice and concurrently; it never waits long for a lock, so that\n' +
    'no session queues behind it. After a teardown the daemons resume.',
  flags: {
    'dry-run': { type: 'boolean', about: 'prints the SQL and runs nothing' },
    role: { type: 'string', value: 'NAME', about: "grants the daemon's role, which must exist, what it needs" },
  },
  run: async ({ 'dry-run': dry, role }, { env, print, complain = () => {} }) => {
    const config = loadConfig(env, ['database']);
    const named = typeof role === 'string' ? { role } : {};
    try {
      // its output is SQL alone
      if (dry === true) print(await dryRun(config, { ...named, say: complain }));
      else {
        await migrate(config, { ...named, say: print });
        print('the database is ready');
      }
    } catch (error) {
      throw toSmslogdError(error);
    }
    return 0;
  },
};

/** Every command by its name, loaded when it is asked for, so that `config` does not load what the daemon needs. */
import type { Command } from './command.ts';

export const COMMANDS: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  run: () => import('./run.ts'),
  migrate: () => import('./migrate.ts'),
  doctor: () => import('./doctor.ts'),
  status: () => import('./status.ts'),
  verify: () => import('./verify.ts'),
  send: () => import('./send.ts'),
  simulate: () => import('./simulate.ts'),
  demo: () => import('./demo.ts'),
  teardown: () => import('./teardown.ts'),
  config: () => import('./config.ts'),
  roles: () => import('./roles.ts'),
  completion: () => import('./completion.ts'),
};

/** All of them, for what tells of each. */
export async function allCommands(): Promise<[name: string, command: Command][]> {
  return await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]): Promise<[string, Command]> => [name, (await load()).command]),
  );
}

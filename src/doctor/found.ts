/** What earlier checks found and later ones need. */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import type { Source } from '../source.ts';
import type { Check } from './check.ts';

export interface Found {
  readonly env: NodeJS.ProcessEnv;
  config?: Config;
  /** the gateway's settings are there, or not needed */
  gatewayKnown?: boolean;
  /** answers on DATABASE_URL */
  sql?: Sql;
  user?: string;
  systemId?: string;
  /** policies hide from the role what it uses */
  hidden?: boolean;
  /** the schema is migrated */
  migrated?: boolean;
  source?: Source;
}

type Needed = 'config' | 'gatewayKnown' | 'sql' | 'user' | 'migrated' | 'source';

const NAMES: Readonly<Record<Needed, string>> = {
  config: 'valid settings',
  gatewayKnown: 'valid settings',
  sql: 'a database that answers',
  user: 'a database that answers',
  migrated: 'the schema',
  source: 'the source table',
};

/** A check that runs only where everything in `needs` was found; it gets those as present. */
export function needing<N extends Needed>(
  name: string,
  needs: readonly N[],
  run: (found: Found & Required<Pick<Found, N>>) => ReturnType<Check<Found>['run']>,
): Check<Found> {
  return {
    name,
    lacks: (found) => needs.filter((need) => found[need] === undefined).map((need) => NAMES[need])[0],
    run: (found) => run(found as Found & Required<Pick<Found, N>>),
  };
}

/** Checks and repairs the mirror's publication. src/schema/publication.ts defines what it must be. */
import type { Config } from '../settings.ts';
import { codeOf, SmslogdError, toSmslogdError } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Connections } from '../postgres/connections.ts';
import { DIVISION_BY_ZERO } from '../postgres/refusal.ts';
import { describePublication, publicationStatements, type PublicationState } from '../schema/publication.ts';
import type { Source } from '../source.ts';
import type { Observed } from './mode.ts';

export function stateOf(config: Config, source: Source, now: PublicationState): Observed['publication'] {
  if (isIncomplete(config, source, now)) return 'incomplete';
  return publicationStatements(config, source, now).length > 0 ? 'excess' : 'correct';
}

/** True if the stream would miss something. What is published in excess does no harm to the stream. */
export function isIncomplete(config: Config, source: Source, now: PublicationState): boolean {
  return publicationStatements(config, source, { ...now, update: false, delete: false, generated: true }).length > 0;
}

export interface Repair {
  readonly config: Config;
  readonly connections: Pick<Connections, 'control' | 'copy'>;
  readonly source: Source;
  /** what marks a reconcile as due, in the same transaction; undefined: nothing is missing */
  readonly before?: readonly string[] | undefined;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors'>;
}

/**
 * Repairs the publication. False if our role may not: the SQL to run is logged then. Throws what else keeps it from being repaired, as a lock or an event trigger, and
 * stepped_down where `before` marks nothing. What is published in excess does the stream no harm: false.
 */
export async function repairPublication({
  config,
  connections,
  source,
  before,
  log,
  metrics,
}: Repair): Promise<boolean> {
  const statements = publicationStatements(
    config,
    source,
    await describePublication(connections.control, config, source),
  );
  if (statements.length === 0) return true;
  const name = config.PUBLICATION_NAME;
  metrics.errors.inc({ code: 'publication_missing' });
  try {
    await connections.copy
      .unsafe(['set local lock_timeout = 400', ...(before ?? []), ...statements].join(';\n'))
      .simple();
    const repaired = new SmslogdError('publication_missing', 'the publication was misconfigured and has been repaired');
    logProblem(log, 'warn', repaired, { publication: name });
    return true;
  } catch (error) {
    if (codeOf(error) === DIVISION_BY_ZERO) throw steppedDown();
    if (codeOf(error) !== '42501') {
      if (before === undefined) return false;
      const { code, message, hint } = toSmslogdError(error);
      throw new SmslogdError(code, `the publication cannot be repaired: ${message}`, { cause: error, hint });
    }
    const problem = new SmslogdError('publication_missing', `the publication ${name} is missing or misconfigured`, {
      cause: error,
      hint: `Run as the owner of the source table: ${statements.join('; ')};`,
    });
    logProblem(log, 'warn', problem);
    return false;
  }
}

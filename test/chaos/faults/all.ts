import type { FaultName } from '../plan.ts';
import { DAEMON_FAULTS } from './daemons.ts';
import type { Fault } from './fault.ts';
import { PATH_FAULTS } from './paths.ts';
import { SERVER_FAULTS } from './server.ts';
import { STREAM_FAULTS } from './stream.ts';
import { TABLE_FAULTS } from './tables.ts';

/** How each fault of a plan is done. */
export const DO: Readonly<Record<FaultName, Fault>> = {
  ...DAEMON_FAULTS,
  ...SERVER_FAULTS,
  ...STREAM_FAULTS,
  ...TABLE_FAULTS,
  ...PATH_FAULTS,
};

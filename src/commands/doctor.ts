import { loadConfig } from '../settings.ts';
import { unknownSettings } from '../settings-shown.ts';
import { askGateway } from '../doctor/gateway.ts';
import { lineOf, ok, runChecks, summaryOf, warn, type Check } from '../doctor/check.ts';
import { encryptionCheck } from '../doctor/encryption.ts';
import { needing, type Found } from '../doctor/found.ts';
import { slotChecks } from '../doctor/slot.ts';
import { schemaChecks } from '../doctor/schema.ts';
import { serverChecks } from '../doctor/server.ts';
import { sessionChecks } from '../doctor/session.ts';
import { timezoneCheck } from '../doctor/timezones.ts';
import { vacuumChecks } from '../doctor/vacuum.ts';
import type { Command } from './command.ts';

export const checks: readonly Check<Found>[] = [
  {
    name: 'settings',
    run: async (found) => {
      try {
        found.config = loadConfig(found.env, ['database', 'loops']);
        found.gatewayKnown = true;
        return ok('valid');
      } catch (error) {
        // what can be looked at without the rest is
        try {
          found.config = loadConfig(found.env, ['database']);
        } catch {
          // the first complaint names that, too
        }
        throw error;
      }
    },
  },
  {
    name: 'names of settings',
    run: async ({ env }) => {
      const unknown = unknownSettings(env);
      if (unknown.length === 0) return ok('all are known');
      const said = unknown.map(({ name, sentence }) => `${name} ${sentence}`).join('; ');
      return warn(said, `unset ${unknown.map(({ name }) => name).join(' ')} # or correct the name`);
    },
  },
  encryptionCheck,
  ...serverChecks,
  timezoneCheck,
  ...sessionChecks,
  ...schemaChecks,
  ...slotChecks,
  ...vacuumChecks,
  needing('gateway', ['config', 'gatewayKnown'], async ({ env, config }) =>
    config.LOOPS.includes('poller') ? askGateway(config, env) : { level: 'skip', says: 'LOOPS leaves the poller out' },
  ),
];

export const command: Command = {
  summary: 'checks settings, PostgreSQL and the gateway; a line each, with the fix for what fails',
  details: 'Changes nothing. Exits 0 where nothing fails (a warning is no failure), else 1.',
  flags: { json: { type: 'boolean', about: 'prints the results as JSON' } },
  run: async ({ json }, { env, print }) => {
    const found: Found = { env };
    try {
      const results = await runChecks(checks, found, (result) => {
        // one cause, one line: what could not be looked at is counted in the last one
        if (json !== true && !(result.level === 'skip' && found.config === undefined)) print(lineOf(result));
      });
      const failed = results.filter(({ level }) => level === 'FAIL').length;
      if (json === true) print(JSON.stringify({ ok: failed === 0, checks: results }, null, 2));
      else print(summaryOf(results));
      return failed === 0 ? 0 : 1;
    } finally {
      await found.sql?.end({ timeout: 1 });
    }
  },
};

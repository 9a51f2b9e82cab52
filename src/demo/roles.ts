/** The demo's roles, as in production: the daemon and the reimbursement service have only the privileges that they need. */
import { readFileSync } from 'node:fs';
import { ROOT } from '../package.ts';
import type { Sql } from '../postgres/pools.ts';
import { quoteLiteral } from '../postgres/quoting.ts';

const ROLES = new URL('sql/roles.sql', ROOT);

export const DAEMON_ROLE = 'smslogd';
/** the daemon's stream and slot */
export const REPLICATION_ROLE = 'smslogd_replication';
/** the login of a service that may insert into the log: a member of sms_writer */
export const SERVICE_ROLE = 'reimbursement';

/** Creates the roles with their logins; `migrate` grants what they may do. */
export async function createRoles(sql: Sql, password: string): Promise<void> {
  const secret = quoteLiteral(password);
  await sql.unsafe(readFileSync(ROLES, 'utf8'));
  await sql.unsafe(`alter role ${DAEMON_ROLE} password ${secret};
                    alter role ${REPLICATION_ROLE} password ${secret};
                    create role ${SERVICE_ROLE} login password ${secret} in role sms_writer`);
}

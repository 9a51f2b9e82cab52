/**
 * Sends one SMS and logs it. The row is written first, without a gateway id: so nothing is sent that is not logged, and an SMS whose fate we
 * do not learn is judged like any other (Unaccepted at the end of its life). The answer then completes the row.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { loadConfig } from '../settings.ts';
import { openDatabase, type Sql } from '../postgres/pools.ts';
import { DURABLE } from '../postgres/session.ts';
import { SmslogdError, toSmslogdError } from '../errors.ts';
import { tlsMeaning } from '../gateway/certificates.ts';
import { currentCredentials } from '../gateway/credentials.ts';
import { createGateway, type Exchange } from '../gateway/client.ts';
import { parseReply, type Reply } from '../gateway/reply.ts';
import { requireSchema } from '../schema/migrate.ts';
import { isFinal, SMS_TYPES, type SmsType, type Status } from '../status.ts';
import type { Command, Flags } from './command.ts';

/** With its country code: nine digits are a number without one. */
const PHONE = /^\+?([1-9]\d{9,14})$/;
const LONGEST_TEXT = 2_000;
/** Of the write of what the gateway said. */
const TRIES = 20;
const AGAIN_MS = 1_000;

export const command: Command = {
  summary: 'sends one SMS through IP2SMS and logs it',
  details:
    'For operators who test the channel. Prints the id of the new row in verification.sms_log and its status; the daemon polls for later ones.\n' +
    'A refused SMS is logged as Rejected, and the exit code is 1, as for every SMS that is known not to arrive.',
  flags: {
    to: { type: 'string', value: '+380XXXXXXXXX', about: 'the phone number' },
    text: { type: 'string', value: 'TEXT', about: 'the text' },
    type: { type: 'string', value: 'TYPE', about: `one of ${SMS_TYPES.join(', ')}; default text` },
  },
  run: async (flags, { env, print }) => {
    const message = readMessage(flags);
    const config = loadConfig(env, ['database', 'gateway']);
    const sql = openDatabase(config, { max: 1, name: 'send' });
    const gateway = createGateway(config, () => currentCredentials(config, env));
    try {
      await requireSchema(sql);
      const id = await logUnsent(sql, message);
      print(`id      ${id}`);
      const exchange = await gateway.sendSms({ to: message.digits, text: message.text });
      let reply;
      try {
        reply = understand(exchange);
      } catch (error) {
        // a request that was refused sent nothing: the row must not wait for a fate
        const refused = exchange.kind === 'response' && exchange.status >= 400 && exchange.status < 500;
        if (refused || toSmslogdError(error).code === 'gateway_unauthorized') await complete(sql, id, NOT_SENT);
        throw error;
      }
      const status = await complete(sql, id, reply).catch((error: unknown) => {
        throw unlogged(reply.status, error);
      });
      print(`status  ${status}`);
      if (reply.status === 'Rejected')
        throw new SmslogdError('sms_rejected', `the gateway rejected the SMS: ${reply.reason ?? 'other'}`);
      return isLost(reply.status) ? 1 : 0;
    } catch (error) {
      throw toSmslogdError(error);
    } finally {
      await gateway.close();
      await sql.end({ timeout: 1 });
    }
  },
};

/** It is known not to arrive. */
const isLost = (status: Status) => isFinal(status) && status !== 'Delivered';

/** What the gateway said is in no row: whoever sees this alone must know that the SMS is on its way. */
function unlogged(said: Status, error: unknown): SmslogdError {
  const { code, message } = toSmslogdError(error);
  return new SmslogdError(code, `the gateway answered ${said}, which could not be logged: ${message}`, {
    hint: isLost(said)
      ? 'The SMS does not arrive, whatever becomes of its row.'
      : 'Do not send the SMS again: it may arrive, though its row may become Unaccepted for want of a gateway id.',
    cause: error,
  });
}

const NOT_SENT = { id: undefined, status: 'Unaccepted', date: undefined } as const;

interface Message {
  readonly digits: string;
  readonly text: string;
  readonly type: SmsType;
}

function readMessage(flags: Flags): Message {
  const [, digits] = PHONE.exec(String(flags['to'] ?? '')) ?? [];
  if (digits === undefined) throw new SmslogdError('usage', '--to must be a phone number such as +380XXXXXXXXX');
  const text = flags['text'];
  if (typeof text !== 'string' || text.trim() === '' || text.length > LONGEST_TEXT)
    throw new SmslogdError('usage', `--text must be a text of 1 to ${LONGEST_TEXT} characters`);
  const type = SMS_TYPES.find((known) => known === (flags['type'] ?? 'text'));
  if (type === undefined) throw new SmslogdError('usage', `--type must be one of ${SMS_TYPES.join(', ')}`);
  return { digits, text, type };
}

/** Throws what keeps the fate of the SMS unknown. */
function understand(exchange: Exchange): Extract<Reply, { kind: 'status' }> {
  if (exchange.kind !== 'response') {
    const what = exchange.kind === 'timeout' ? 'did not answer in time' : 'cannot be reached';
    const tls = exchange.kind === 'network' ? tlsMeaning(exchange.cause) : undefined;
    throw new SmslogdError(
      'gateway_unreachable',
      `the gateway ${what}${tls === undefined ? '' : `: ${tls.says}`}; the SMS is logged without a status`,
      tls === undefined ? {} : { hint: tls.hint },
    );
  }
  const reply = parseReply(exchange.body, undefined);
  if (exchange.status === 401 || exchange.status === 403 || reply.kind === 'unauthorized')
    throw new SmslogdError('gateway_unauthorized', 'the gateway refuses the login; the SMS was not sent', {
      hint: 'Check IP2SMS_LOGIN and IP2SMS_PASSWORD, then send it again. It is logged as Unaccepted.',
    });
  if (exchange.status !== 200 || reply.kind !== 'status') {
    const why = reply.kind === 'protocol' ? reply.why : reply.kind;
    throw new SmslogdError('gateway_protocol', `the gateway's answer was not a status (${exchange.status}, ${why})`, {
      hint: 'Check IP2SMS_URL: it must be the address for sending. `smslogd doctor` asks the gateway, too.',
    });
  }
  return reply;
}

/** The row without what the gateway will say; returns its id. */
async function logUnsent(sql: Sql, { digits, text, type }: Message): Promise<string> {
  const [row] = await sql<{ id: string }[]>`
    with ${sql.unsafe(DURABLE)}
    insert into verification.sms_log (phone_number, type, body) select ${`+${digits}`}::text, ${type}::text, ${text}::text from durable returning id`;
  return row?.id ?? '';
}

/** Returns the status that the SMS has now: a final one that it got meanwhile stays. */
async function complete(
  sql: Sql,
  id: string,
  reply: { id: string | undefined; status: Status; date: number | undefined },
): Promise<Status> {
  const date = reply.date === undefined ? null : new Date(reply.date);
  for (let tries = 1; ; tries += 1) {
    try {
      // one statement: an SMS that is final at once is in the queue no longer
      const [row] = await sql<{ status: Status }[]>`
        with ${sql.unsafe(DURABLE)}, wrote as (
          update verification.sms_log l
             set gateway_id = ${reply.id ?? null}, updated_at = now(),
                 gateway_status = case when o.open then ${reply.status} else l.gateway_status end,
                 status_changed_at = case when o.open then coalesce(${date}::timestamptz, now()) else l.status_changed_at end
            from (select coalesce(smslogd.is_open(gateway_status), true) as open from verification.sms_log where id = ${id} for no key update) o cross join durable
           where l.id = ${id}
          returning l.id, l.gateway_status as status
        ), dequeued as (
          delete from smslogd.sms_poll p using wrote w where p.id = w.id and not smslogd.is_open(w.status)
        )
        select status from wrote`;
      return row?.status ?? reply.status;
    } catch (error) {
      // the SMS is sent: while the server restarts its gateway id must not get lost
      if (tries === TRIES || toSmslogdError(error).reaction !== 'retry') throw error;
      await delay(AGAIN_MS);
    }
  }
}

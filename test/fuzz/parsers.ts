/** Every parser that eats bytes from outside, with the files that it is and the property that is fuzzed. A new one is added here, and nowhere else. */
import type { IRawProperty } from 'fast-check';
import * as gateway from './gateway.ts';
import * as replication from './replication.ts';
import * as server from './server.ts';

export interface Parser {
  readonly name: string;
  readonly files: readonly string[];
  readonly property: IRawProperty<unknown>;
  /** one case takes so many times as long as others: it gets fewer */
  readonly costs?: number;
}

const parser = (name: string, files: readonly string[], property: unknown, costs = 1): Parser => ({
  name,
  files,
  property: property as IRawProperty<unknown>,
  costs,
});

const STREAM = ['src/replication/frames.ts', 'src/replication/pgoutput.ts', 'src/replication/condense.ts'];
const REPLY = ['src/gateway/reply.ts', 'src/gateway/reply-xml.ts', 'src/gateway/reply-json.ts'];
const ADDRESS = ['src/postgres/conninfo.ts', 'src/postgres/address.ts'];

export const PARSERS: readonly Parser[] = [
  parser('replication messages in every split', STREAM, replication.replicationFrames, 4),
  parser('spoiled replication messages in every split', STREAM, replication.spoiledFrames, 2),
  parser('spoiled replication messages, framed well', STREAM, replication.spoiledMessages, 2),
  parser('LSNs', ['src/postgres/lsn.ts'], replication.lsns),
  parser('replies', REPLY, gateway.replies),
  parser('spoiled replies', REPLY, gateway.spoiledReplies),
  parser('dates', ['src/gateway/date.ts'], gateway.dates),
  parser('Retry-After', ['src/gateway/http.ts'], gateway.retryAfter),
  parser("the simulator's requests", ['src/simulator/requests.ts'], gateway.simulatorRequests),
  parser("the simulator's requests, spoiled", ['src/simulator/requests.ts'], gateway.spoiledSimulatorRequests),
  parser("the simulator's faults", ['src/simulator/fault-words.ts'], gateway.simulatorFaults),
  parser(
    'the error that ends a session in every split',
    ['src/postgres/last-word.ts', 'src/postgres/messages.ts'],
    server.lastWords,
    4,
  ),
  parser('login messages in every split', ['src/postgres/messages.ts'], server.loginMessages, 4),
  parser('spoiled login messages', ['src/postgres/messages.ts'], server.spoiledLogins, 4),
  parser('SCRAM', ['src/postgres/scram.ts'], server.scram, 10),
  parser('addresses', ADDRESS, server.addresses),
  parser('spoiled addresses', ADDRESS, server.spoiledAddresses),
  parser('password files', ['src/postgres/passfile.ts'], server.passwordFiles, 10),
  parser('settings', ['src/settings.ts'], server.settings, 40),
  parser('Accept', ['src/http/accept.ts'], server.acceptHeaders),
  parser('Host', ['src/http/hosts.ts'], server.hostHeaders),
];

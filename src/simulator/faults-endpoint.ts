/**
 * The faults over HTTP, to change them while the simulator runs. Their names are those of the flags.
 *
 *   GET /faults      the active faults, the configured ones, and the numbers of requests
 *   PUT /faults      replaces the faults, by a form (error=1&for=5m) or JSON; latency and clock stay unless they are named
 *   DELETE /faults   removes the faults
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as z from 'zod';
import { toSmslogdError } from '../errors.ts';
import { readFaults, tellFaults } from './fault-words.ts';
import type { Faults } from './faults.ts';

export interface FaultsControl {
  readonly requests: object;
  readonly now: () => number;
  faults: Faults;
}

const WORDS = z.record(z.string(), z.union([z.string(), z.number().transform(String)]));

/** Answers an authorized request for /faults with the body `body`. */
export function answerFaults(
  control: FaultsControl,
  request: IncomingMessage,
  response: ServerResponse,
  body: string,
): void {
  const { method = '' } = request;
  if (method === 'PUT' || method === 'DELETE') {
    try {
      control.faults = readFaults(method === 'PUT' ? wordsOf(body) : {}, control.now(), control.faults);
    } catch (error) {
      return end(response, 400, {
        error: error instanceof SyntaxError || error instanceof z.ZodError ? WRONG : toSmslogdError(error).message,
      });
    }
  } else if (method !== 'GET') return end(response, 405, { error: 'GET, PUT or DELETE' });
  const { faults, requests } = control;
  const { from, until } = faults;
  end(response, 200, {
    now: tellFaults(faults, control.now()),
    faults: { ...faults, from: date(from), until: date(until) },
    requests,
  });
}

const date = (at: number | undefined) => (at === undefined ? undefined : new Date(at).toISOString());
const WRONG = 'not a form such as error=0.5&for=10m, nor JSON such as {"error": 0.5, "for": "10m"}';

function wordsOf(body: string): Record<string, string> {
  if (body.trimStart().startsWith('{')) return WORDS.parse(JSON.parse(body));
  return Object.fromEntries(new URLSearchParams(body.trim()));
}

function end(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`);
}

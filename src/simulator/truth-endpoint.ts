/**
 * The fates over HTTP, if the simulator runs as a process. One SMS is {"id": "…", "fate": [{"status": "…", "at": epoch ms}, …]}.
 *
 *   PUT /truth        loads: a line of JSON for each SMS, or one array; answers {"loaded": N}
 *   GET /truth?id=ID  one SMS, or 404
 *   GET /truth        all, a line each
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import type { Truth } from './truth.ts';

const SMS = z.object({
  id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  fate: z.array(z.object({ status: z.string().min(1).max(100), at: z.number() })).min(1),
});

/** Answers an authorized request for /truth. */
export function answerTruth(truth: Truth, request: IncomingMessage, response: ServerResponse): void {
  serve(truth, request, response).catch(() => response.destroy());
}

async function serve(truth: Truth, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method === 'PUT') {
    const loaded = await load(truth, request);
    return end(response, loaded === undefined ? 400 : 200, loaded === undefined ? { error: WRONG } : { loaded });
  }
  if (request.method !== 'GET') return end(response, 405, { error: 'GET or PUT' });
  const id = new URL(request.url ?? '', 'http://simulator').searchParams.get('id');
  if (id === null) {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    return await pipeline(Readable.from(chunks(truth)), response);
  }
  const fate = truth.get(id);
  return end(response, fate === undefined ? 404 : 200, fate === undefined ? { error: 'not known' } : { id, fate });
}

const WRONG = 'not {"id", "fate": [{"status", "at"}]}, a line each or an array; what stood before it is loaded';

/** The number of SMS that were loaded; undefined if the body is invalid. */
async function load(truth: Truth, request: IncomingMessage): Promise<number | undefined> {
  const before = { loaded: 0 };
  const take = (value: unknown) => {
    const { id, fate } = SMS.parse(value);
    truth.set(
      id,
      fate.toSorted((a, b) => a.at - b.at),
    );
    before.loaded += 1;
  };
  let array: string | undefined;
  try {
    for await (const line of createInterface({ input: request })) {
      if (array === undefined && before.loaded === 0 && line.trimStart().startsWith('[')) array = '';
      if (array !== undefined) array += line;
      else if (line.trim() !== '') take(JSON.parse(line));
    }
    if (array !== undefined) z.array(z.unknown()).parse(JSON.parse(array)).forEach(take);
  } catch {
    request.resume();
    return undefined;
  }
  return before.loaded;
}

/** All SMS as lines, a thousand at a time. */
function* chunks(truth: Truth): Generator<string> {
  let lines: string[] = [];
  for (const id of truth.ids()) {
    lines.push(`${JSON.stringify({ id, fate: truth.get(id) })}\n`);
    if (lines.length === 1000) {
      yield lines.join('');
      lines = [];
    }
  }
  yield lines.join('');
}

function end(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

/** What the gateway answers, and what its simulator is asked. */
import * as fc from 'fast-check';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { codeOf } from '../../src/errors.ts';
import { escapeXml } from '../../src/gateway/client.ts';
import { parseDate } from '../../src/gateway/date.ts';
import { readRetryAfter } from '../../src/gateway/http.ts';
import { parseReply } from '../../src/gateway/reply.ts';
import { gatewayDate } from '../../src/simulator/dates.ts';
import { readFaults } from '../../src/simulator/fault-words.ts';
import { askedId, sentMessage } from '../../src/simulator/requests.ts';
import { STATUSES } from '../../src/status.ts';
import { orRefused, spoiled, spoiledText } from './bytes.ts';

const ID = '3806712345670000000000012';
const DATE = 'Wed, 28 Mar 2007 12:35:00 +0300';
const REPLIES = [
  `<?xml version="1.0"?><status id="${ID}" date="${DATE}"><state>Delivered</state></status>`,
  `<status date="${DATE}"><id>${ID}</id><state error="Invalid abonent number">Rejected</state></status>`,
  `<status date="${DATE}"><detail><id>1</id><state>Enroute</state></detail><detail><id>${ID}</id><state>Expired</state></detail></status>`,
  `<status date=""><id>1</id><id>${ID}</id><state>Accepted</state><state>Delivered</state></status>`,
  `{"id":${ID},"state":{"value":"Delivered"},"date":"${DATE}"}`,
  `{"state":"Rejected","id":"${ID}","date":null}`,
  '{"error":{"code":401,"message":"unauthorized"}}',
  'Request not recognized',
];

export const spoiledReplies = fc.property(
  fc.oneof(spoiled(REPLIES), fc.uint8Array({ maxLength: 200 })),
  fc.boolean(),
  (body, any) => {
    const reply = parseReply(body, any ? undefined : ID);
    if (reply.kind !== 'status') return;
    ok((STATUSES as readonly string[]).includes(reply.status));
    // an answer about another SMS is never taken
    if (!any) ok(reply.id === ID || (reply.id === undefined && reply.status === 'Rejected'));
    ok((reply.word ?? '').length <= 40);
  },
);

const second = fc.integer({ min: Date.UTC(1991, 0) / 1000, max: Date.UTC(2199, 0) / 1000 });

export const replies = fc.property(
  fc.stringMatching(/^[0-9]{1,25}$/),
  fc.constantFrom(...STATUSES.filter((status) => status !== 'Unknown' && status !== 'Terminated')),
  second,
  fc.constantFrom('attribute', 'element', 'json', 'number'),
  (id, status, at, form) => {
    const date = gatewayDate(at * 1000);
    const whole = String(BigInt(id));
    const said = form === 'number' ? whole : id;
    const text = {
      attribute: `<status id="${id}" date="${date}"><state>${status}</state></status>`,
      element: `<status date="${date}"><id>${id}</id><state>${status}</state></status>`,
      json: JSON.stringify({ id, state: { value: status }, date }),
      number: `{"id":${whole},"state":"${status}","date":"${date}"}`,
    }[form];
    const reply = parseReply(Buffer.from(text), said);
    equal(reply.kind, 'status', text);
    if (reply.kind === 'status') equal(`${reply.id} ${reply.date}`, `${said} ${at * 1000}`, text);
    ok(parseReply(Buffer.from(text), `${said}1`).kind === 'mismatch');
  },
);

const two = (most: number) => fc.nat(most).map((n) => String(n).padStart(2, '0'));
/** In the right form; days, hours and minutes are often too many. */
const formed = fc
  .tuple(
    two(33),
    fc.constantFrom('Feb', 'Apr', 'Dec'),
    two(25),
    two(61),
    two(61),
    fc.constantFrom('GMT', '-1159', '+0300'),
  )
  .map(([day, month, hour, minute, s, zone]) => `Wed, ${day} ${month} 2007 ${hour}:${minute}:${s} ${zone}`);

export const dates = fc.property(fc.oneof(second, formed, spoiledText([DATE])), (at) => {
  if (typeof at === 'number') return equal(parseDate(gatewayDate(at * 1000)), at * 1000);
  const read = parseDate(at);
  if (read === undefined) return;
  const [, day = '', rest, sign, hours, minutes] = /, (\d+) (.*) (?:[A-Z]+|([+-])(\d\d)(\d\d))$/.exec(at.trim()) ?? [];
  const zone = Number(`${sign ?? ''}1`) * (60 * Number(hours ?? 0) + Number(minutes ?? 0));
  ok(new Date(read + zone * 60_000).toUTCString().endsWith(`, ${day.padStart(2, '0')} ${rest} GMT`), at);
});

export const retryAfter = fc.property(spoiledText(['120', '0', DATE, '1.5', '-1']), second, (text, now) => {
  const rest = readRetryAfter(text, now * 1000);
  ok(rest === undefined || rest >= 0);
});

const REQUESTS = [
  `<?xml version="1.0"?><request id="${ID}">status</request>`,
  '<message><service id="single" source="eHealth" uniq_key="k1"/><to ext_id="1">+380000000001</to><body content-type="text/plain">code</body></message>',
  `{"id":${ID},"value":"state"}`,
  '{"id":"single","source":"eHealth","to":[{"msisdn":"380000000001","ext_id":1}],"body":{"value":"code"}}',
];

const ascii = fc.string({ unit: 'grapheme-ascii', maxLength: 40 });

export const simulatorRequests = fc.property(
  fc.stringMatching(/^[\w-]{1,64}$/),
  fc.stringMatching(/^\+?38000[0-9]{5,10}$/),
  ascii,
  ascii,
  fc.boolean(),
  (id, number, source, body, json) => {
    equal(askedId(json ? JSON.stringify({ id, value: 'state' }) : `<request id="${id}">status</request>`, json), id);
    const text = json
      ? JSON.stringify({
          id: 'bulk',
          source,
          uniq_key: id,
          to: [{ msisdn: number, ext_id: id }],
          body: { value: body },
        })
      : `<message><service id="bulk" source="${escapeXml(source)}" uniq_key="${id}"/><to ext_id="${id}">${number}</to><body>${escapeXml(body)}</body></message>`;
    deepEqual(
      sentMessage(text, json),
      { mode: 'bulk', source, uniqueKey: id, to: [{ number, extId: id }], body },
      text,
    );
  },
);

export const spoiledSimulatorRequests = fc.property(spoiledText(REQUESTS), fc.boolean(), (text, json) => {
  ok(/^[\w-]{1,64}$/.test(askedId(text, json) ?? 'none'));
  const message = sentMessage(text, json);
  if (message !== undefined) ok(Array.isArray(message.to));
});

export const simulatorFaults = fc.property(
  fc.dictionary(
    fc.constantFrom('latency', 'from', 'for', 'operator', 'skew', 'error', 'constructor'),
    spoiledText(['0.5', '+90s', '12:00:30', '38050,38066', '-100']),
  ),
  (words) => {
    orRefused(
      () => readFaults(words, 0),
      (error) => codeOf(error) === 'usage',
    );
  },
);

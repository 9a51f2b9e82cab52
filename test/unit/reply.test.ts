import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseDate } from '../../src/gateway/date.ts';
import { parseReply, type Reply } from '../../src/gateway/reply.ts';
import { STATUSES } from '../../src/status.ts';

const ID = '6614012446421';
const DATE = 'Wed, 28 Mar 2007 12:35:00 +0300';
const INSTANT = Date.UTC(2007, 2, 28, 9, 35);

function read(text: string, asked: string | undefined = ID): Reply {
  return parseReply(Buffer.from(text), asked);
}

function word(text: string): Reply {
  return read(`<status id='${ID}' date='${DATE}'><state>${text}</state></status>`);
}

describe('every form of a status', () => {
  test.each([
    ['classic', `<status id='${ID}' date='${DATE}'><state>Accepted</state></status>`, ID, 'Accepted'],
    ['with ext_id', `<status id="${ID}" ext_id="7" date="${DATE}"><state>Enroute</state></status>`, ID, 'Enroute'],
    [
      'with a declaration',
      `<?xml version="1.0" encoding="utf-8"?>\n<status id="${ID}" date="${DATE}"><state>Delivered</state></status>\n`,
      ID,
      'Delivered',
    ],
    [
      'id as an element',
      `<status date='${DATE}'><id>380000535130309161501</id><state>Accepted</state></status>`,
      '380000535130309161501',
      'Accepted',
    ],
    [
      'detail',
      `<status date='${DATE}' reports="waiting"><state>sending</state><total>2</total><detail><id>1234567</id><state>Accepted</state></detail><detail><id>${ID}</id><state>Undeliverable</state></detail></status>`,
      ID,
      'Undeliverable',
    ],
    [
      'parallel lists',
      `<status groupid='9' date='${DATE}'><id>1</id><id>${ID}</id><state>Accepted</state><state>Enroute</state></status>`,
      ID,
      'Enroute',
    ],
    ['JSON', `{"state":{"value":"Accepted"},"id":${ID},"date":"${DATE}","execTime":3}`, ID, 'Accepted'],
    [
      'JSON with a text as execTime',
      `{"state":{"value":"Delivered"},"id":${ID},"date":"${DATE}","execTime":"3"}`,
      ID,
      'Delivered',
    ],
    ['JSON with the state as a text', `{"state":"Enroute","id":${ID},"date":"${DATE}"}`, ID, 'Enroute'],
    // between the largest integer that a double holds exactly and those with a digit more
    [
      'JSON with 16 digits',
      `{"state":{"value":"Expired"},"id":9999999999999999,"date":"${DATE}"}`,
      '9999999999999999',
      'Expired',
    ],
    [
      'JSON with 25 digits',
      `{"state":{"value":"Expired"},"id":3800012345671174984921384,"date":"${DATE}"}`,
      '3800012345671174984921384',
      'Expired',
    ],
    [
      'JSON with the id as a text',
      `{"state":{"value":"Expired"},"id":"0123456","date":"${DATE}"}`,
      '0123456',
      'Expired',
    ],
  ])('%s', (_, text, asked, status) => {
    expect(read(text, asked)).toEqual({ kind: 'status', id: asked, status, date: INSTANT });
  });

  test('the words that are not our own, in any case, from text or CDATA', () => {
    const words = {
      waiting: 'Pending',
      SENDING: 'Pending',
      sent: 'Enroute',
      canceled: 'Deleted',
      ACCEPTED: 'Accepted',
    };
    for (const [word, status] of Object.entries(words)) {
      expect(read(`<status id="${ID}" date="${DATE}"><state><![CDATA[${word}]]></state></status>`)).toMatchObject({
        status,
      });
    }
  });

  test('a rejection needs no id, and its reason is of the closed list', () => {
    const reason = (error: string) => read(`<status date=''><state error='${error}'>Rejected</state></status>`);
    expect(reason('uniq_key dupe')).toEqual({
      kind: 'status',
      id: undefined,
      status: 'Rejected',
      date: undefined,
      reason: 'uniq_key_dupe',
    });
    expect(reason('Unknown operator code 99')).toMatchObject({ reason: 'unknown_operator' });
    expect(reason('Text don`t match allowed templates')).toMatchObject({ reason: 'text_not_in_templates' });
    for (const unknown of ['something new', 'no uniq_key dupe'])
      expect(reason(unknown)).toMatchObject({ reason: 'other' });
    expect(read(`<status id='${ID}' date=''><state>Rejected</state></status>`)).toMatchObject({ reason: 'other' });
    for (const none of ['', ',"id":""', ',"id":" "', ',"id":null'])
      expect(read(`{"state":{"value":"Rejected","error":"Prepaid bill error"},"date":""${none}}`)).toMatchObject({
        id: undefined,
        reason: 'prepaid_bill',
      });
  });

  test.each([
    ['uniq_key dupe', 'uniq_key_dupe'],
    ['Unknown operator code 480', 'unknown_operator'],
    ['Message text not found', 'no_text'],
    ['Invalid abonent number', 'invalid_number'],
    ['Prepaid messages limit exceed', 'prepaid_limit'],
    ['Prepaid bill error', 'prepaid_bill'],
    ['Text don`t match allowed templates', 'text_not_in_templates'],
    ['2 or more numbers required for bulk or individual mode', 'two_numbers_required'],
    ['Invalid source number', 'invalid_source'],
  ])('the reason %s is known', (error, reason) => {
    for (const said of [error, error.toUpperCase(), ` ${error}.`])
      expect(read(`<status date=''><state error='${said}'>Rejected</state></status>`)).toMatchObject({ reason });
  });

  test('an empty, absent or broken date is told, and the status stands', () => {
    for (const date of [`date=''`, '', `date='yesterday'`, `date='Wed, 31 Feb 2007 12:35:00 +0300'`]) {
      expect(read(`<status id='${ID}' ${date}><state>Delivered</state></status>`)).toMatchObject({
        status: 'Delivered',
        date: undefined,
      });
    }
  });

  test('whatever else stands in the place of the date or of a reason, the status stands', () => {
    const odd = ['1649576128', '{"at":1}', '[]', 'true', 'null', JSON.stringify('x'.repeat(101))];
    for (const each of odd) {
      const delivered = { kind: 'status', id: ID, status: 'Delivered', date: undefined };
      expect(read(`{"state":{"value":"Delivered","error":${each}},"id":${ID},"date":${each}}`)).toEqual(delivered);
    }
    const long = `Wed, 28 Mar 2007 12:35:00 +0300${' '.repeat(90)}`;
    expect(read(`<status id='${ID}' date='${long}'><state>Delivered</state></status>`)).toMatchObject({
      status: 'Delivered',
    });
  });

  test.each([
    [62, { kind: 'status', status: 'Delivered' }],
    [63, { kind: 'protocol', why: 'too_many_elements' }],
  ])('a reply has 64 elements at most, two and %d others', (others, expected) => {
    expect(read(`<status id='${ID}'><state>Delivered</state>${'<a/>'.repeat(others)}</status>`)).toMatchObject(
      expected,
    );
  });

  test('an unknown word is Unknown; it is shown cut, and only where it is a plain word', () => {
    expect(word('Gone fishing')).toMatchObject({ status: 'Unknown', word: 'Gone fishing' });
    expect(word('x'.repeat(90))).toMatchObject({ status: 'Unknown', word: 'x'.repeat(40) });
    expect(word('380000000001')).toMatchObject({ status: 'Unknown', word: '' });
    // what every object has
    expect(word('constructor')).toMatchObject({ status: 'Unknown', word: 'constructor' });
  });
});

describe('what is no answer', () => {
  test.each([
    ['another id', `<status id='1' date='${DATE}'><state>Delivered</state></status>`],
    ['an id that only begins like ours', `<status id='${ID}1' date='${DATE}'><state>Delivered</state></status>`],
    ['no id', `<status date='${DATE}'><state>Delivered</state></status>`],
    ['no id, and a rejection without a reason', `<status date=''><state>Rejected</state></status>`],
    [
      'details of others',
      `<status date='${DATE}'><state>sent</state><detail><id>1</id><state>Delivered</state></detail></status>`,
    ],
    [
      'lists of others',
      `<status date='${DATE}'><id>1</id><id>2</id><state>Delivered</state><state>Delivered</state></status>`,
    ],
    ['JSON about another', `{"state":{"value":"Delivered"},"id":1,"date":"${DATE}"}`],
    ['JSON whose last digit differs past a double', `{"state":{"value":"Delivered"},"id":${ID}0000000001}`],
  ])('mismatch: %s', (_, text) => {
    expect(read(text, text.includes('0000000001') ? `${ID}0000000002` : ID)).toEqual({ kind: 'mismatch' });
  });

  test('a wrong login, as a plain text and as JSON', () => {
    expect(read('401 Unauthorized')).toEqual({ kind: 'unauthorized' });
    for (const error of ['"Unauthorized"', '"401 Unauthorized"', '401', '{"code":401}'])
      expect(read(`{"error":${error}}`)).toEqual({ kind: 'unauthorized' });
  });

  test.each([
    ['empty', ''],
    ['not_recognized', `Request not recognized - xml parse failed. Request text: <request id="${ID}">status</request>`],
    ['plain_text', 'gateway is busy'],
    ['gateway_error', '{"error":"no such id"}'],
    ['gateway_error', '{"error":"nothing is known of 401"}'],
    ['gateway_error', '{"error":null}'],
    ['gateway_error', `<status date=''><state error='Invalid message'>Accepted</state></status>`],
    ['root', '<html><body>502</body></html>'],
    ['xml', `<status id='${ID}'><state>Delivered</state>`],
    ['xml', `<status id='${ID}' id='${ID}'><state>Delivered</state></status>`],
    ['xml', `<status id='${ID}'><state>Deliv&foo;ered</state></status>`],
    ['xml', `<status id='${ID}'><state>Deliv<b>e</b>red</state></status>`],
    ['doctype', `<!DOCTYPE status [<!ENTITY a "Delivered">]><status id='${ID}'><state>&a;</state></status>`],
    ['instruction', `<status id='${ID}'><?php x ?><state>Delivered</state></status>`],
    ['too_many_elements', `<status>${'<a>'.repeat(5000)}${'</a>'.repeat(5000)}</status>`],
    ['too_deep', `<status id='${ID}'><a><b><c><d/></c></b></a><state>Delivered</state></status>`],
    ['two_states', `<status id='${ID}'><state>Delivered</state><state>Expired</state></status>`],
    [
      'two_states',
      `<status><detail><id>${ID}</id><state>Delivered</state></detail><detail><id>${ID}</id><state>Expired</state></detail></status>`,
    ],
    ['two_states', `{"state":{"value":"Delivered"},"state":{"value":"Expired"},"id":${ID}}`],
    ['two_states', `{"state":{"value":"Delivered"},"\\u0073tate":{"value":"Expired"},"id":${ID}}`],
    ['two_states', `{"state":{"value":"Delivered","value":"Expired"},"id":${ID}}`],
    ['two_states', `{"state":"Delivered","x":[],"state":"Expired","id":${ID}}`],
    ['two_states', `{"id":1,"state":{"value":"Delivered"},"id":${ID}}`],
    ['too_deep', `{"state":{"value":"Delivered"},"id":${ID},"x":[[[[1]]]]}`],
    ['json', `{"state":{"value":"Delivered"},"id":${ID}.5}`],
    ['json', `{"state":{"value":"Delivered"},"id":0${ID}}`],
    ['json', `{"state":{"value":"Delivered"},"id":${ID}} x`],
    ['json', '{'],
    ['json', `{"a${'\\"'.repeat(8000)}`],
    [
      'two_states',
      `<status date=''><id>${ID}</id><id>${ID}</id><state>Delivered</state><state>Expired</state></status>`,
    ],
    ['lists', `<status date=''><id>${ID}</id><id>2</id><state>Delivered</state></status>`],
    ['lists', `<status id='${ID}'><id>2</id><state>Delivered</state></status>`],
    ['xml', `<status id='${ID}'><state>${'x'.repeat(201)}</state></status>`],
    ['xml', `<status id='${'1'.repeat(65)}'><state>Delivered</state></status>`],
    ['xml', `<status><id>${'1'.repeat(65)}</id><state>Delivered</state></status>`],
    ['json', `{"state":{"value":"${'x'.repeat(201)}"},"id":${ID}}`],
    ['json', `{"state":"${'x'.repeat(201)}","id":${ID}}`],
    ['json', `{"state":{"value":"Delivered"},"id":"${'1'.repeat(65)}"}`],
    ['no_state', `<status id='${ID}' date='${DATE}'/>`],
    ['no_state', `<status id='${ID}' date='${DATE}'><state> </state></status>`],
    ['json', `{"state":{"value":`],
    ['json', `{"state":{"value":7},"id":${ID}}`],
    ['json', `{"state":{"value":"Delivered"},"id":-5}`],
  ])('protocol fault %s: %s', (why, text) => {
    expect(read(text)).toEqual({ kind: 'protocol', why });
  });

  test('bytes that are no UTF-8', () => {
    const cp1251 = Buffer.concat([
      Buffer.from(`<status id='${ID}'><state>`),
      Buffer.from([0xcf, 0xf0]),
      Buffer.from('</state></status>'),
    ]);
    expect(parseReply(cp1251, ID)).toEqual({ kind: 'protocol', why: 'encoding' });
    expect(parseReply(Buffer.from([0x1f, 0x8b, 8, 0, 0]), ID)).toEqual({ kind: 'protocol', why: 'encoding' });
  });
});

test('whatever comes, the parser does not throw, and shows no status of another id', () => {
  const pieces = fc.constantFrom(
    '<status',
    ' id="',
    ID,
    '">',
    '<state>',
    'Delivered',
    '</state>',
    '</status>',
    '{"id":',
    '"state":{"value":"',
    '"}',
    '<!--',
    '-->',
    '&#0;',
    '&lt;',
    '1',
    '\n',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(pieces, { maxLength: 30 }).map((p) => p.join('')),
        fc.string(),
        fc.json(),
      ),
      (text) => {
        const reply = read(text);
        const ours = reply.kind !== 'status' || reply.status === 'Rejected' || reply.id === ID;
        const fixedWords = reply.kind !== 'protocol' || /^[a-z_]+$/.test(reply.why);
        expect({ ours, fixedWords }).toEqual({ ours: true, fixedWords: true });
      },
    ),
    { numRuns: 2000 },
  );
  fc.assert(fc.property(fc.uint8Array(), (bytes) => parseReply(bytes, ID).kind !== 'status'));
});

const LONG = '3800012345671174984921384';
/** Every form, with a status that no part of another one is, about `id`. */
const forms = (id: string) => [
  `<status id='${id}' date='${DATE}' ext_id='5'><state>Undeliverable</state></status>`,
  `<?xml version="1.0" encoding="utf-8"?><status date='${DATE}'><id>${id}</id><state>Undeliverable</state></status>`,
  `<status date='${DATE}' reports="waiting"><state>sending</state><total>1</total><detail><id>${id}</id><state><![CDATA[Undeliverable]]></state></detail></status>`,
  `<status groupid='9' date='${DATE}'><id>1000002</id><id>${id}</id><state>Enroute</state><state>Undeliverable</state></status>`,
  `{"state":{"value":"Undeliverable"},"id":${id},"date":"${DATE}","execTime":3}`,
];

test('a reply that lost, doubled or changed some bytes says what it said, or Unknown, or nothing, and of nobody else', () => {
  const part = fc.record({
    at: fc.nat(400),
    length: fc.integer({ min: 1, max: 40 }),
    byte: fc.integer({ min: 0, max: 255 }),
  });
  const mutations = {
    lost: (bytes: Buffer, at: number, length: number) =>
      Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]),
    doubled: (bytes: Buffer, at: number, length: number) =>
      Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]),
    cut: (bytes: Buffer, at: number) => bytes.subarray(0, at),
    changed: (bytes: Buffer, at: number, _: number, byte: number) => Buffer.from(bytes).fill(byte, at, at + 1),
  };
  for (const id of [ID, LONG]) {
    for (const form of forms(id)) {
      expect(read(form, id)).toMatchObject({ kind: 'status', id, status: 'Undeliverable' });
      fc.assert(
        fc.property(part, fc.constantFrom(...Object.values(mutations)), ({ at, length, byte }, mutate) => {
          const bytes = Buffer.from(form);
          const reply = parseReply(mutate(bytes, at % bytes.length, length, byte), id);
          if (reply.kind !== 'status') return;
          expect(reply.id).toBe(id);
          expect(['Undeliverable', 'Unknown']).toContain(reply.status);
        }),
        { numRuns: 1000 },
      );
    }
  }
});

test('a reply about another SMS is never taken for one about ours', () => {
  const ids = fc.stringMatching(/^[1-9][0-9]{6,24}$/);
  fc.assert(
    fc.property(ids, ids, (id, asked) => {
      for (const form of forms(id)) expect(read(form, asked).kind).toBe(id === asked ? 'status' : 'mismatch');
    }),
    { numRuns: 300 },
  );
});

test('every status of ours is read back from both forms', () => {
  for (const status of STATUSES) {
    expect(read(`<status id='${ID}' date='${DATE}'><state>${status}</state></status>`)).toMatchObject({ status });
    expect(read(`{"state":{"value":"${status}"},"id":${ID},"date":"${DATE}"}`)).toMatchObject({ status });
  }
});

const pad = (n: number) => String(n).padStart(2, '0');

describe('dates', () => {
  test('any instant with any zone is read back', () => {
    const instants = fc.date({ min: new Date('1990-01-02'), max: new Date('2199-12-30'), noInvalidDate: true });
    fc.assert(
      fc.property(instants, fc.integer({ min: -14 * 4, max: 14 * 4 }), (date, quarters) => {
        const minutes = quarters * 15;
        const local = new Date(date.getTime() + minutes * 60_000).toUTCString().replace(' GMT', '');
        const zone = `${minutes < 0 ? '-' : '+'}${pad(Math.floor(Math.abs(minutes) / 60))}${pad(Math.abs(minutes) % 60)}`;
        expect(parseDate(`${local} ${zone}`)).toBe(Math.floor(date.getTime() / 1000) * 1000);
      }),
    );
  });

  test.each([
    '',
    '2007-03-28T12:35:00Z',
    'Wed, 28 Mar 2007 12:35:00',
    'Wed, 28 Mar 2007 24:00:00 +0300',
    'Wed, 28 Mar 2007 12:60:00 +0300',
    'Wed, 00 Mar 2007 12:35:00 +0300',
    'Wed, 28 Foo 2007 12:35:00 +0300',
    'Wed, 28 Mar 2007 12:35:00 +1500',
    'Wed, 28 Mar 2007 12:35:00 +0360',
    'Wed, 28 Mar 0007 12:35:00 +0300',
    'Wed, 28 Mar 2207 12:35:00 +0300',
    'Wed, 28 Mar 2007 12:35:00 EST',
  ])('%s is no date', (text) => {
    expect(parseDate(text)).toBeUndefined();
  });
});

import { parseXml, XmlElement } from '@rgrove/parse-xml';
import { describe, expect, it } from 'vitest';
import { gatewayDate } from '../../src/simulator/dates.ts';
import { drawFault, FAULT_KINDS, shareOf } from '../../src/simulator/faults.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { FORMS, jsonReply, xmlReply } from '../../src/simulator/replies.ts';
import { askedId, refusal, sentMessage, type Message } from '../../src/simulator/requests.ts';

const ID = '6614012446421';
const LONG_ID = '3800012345671767614400384';
const AT = Date.UTC(2007, 2, 28, 9, 35, 0, 999);

function parse(xml: string) {
  const root = parseXml(xml).root!;
  expect(root.name).toBe('status');
  const children = root.children.filter((node) => node instanceof XmlElement);
  return { root, all: (name: string) => children.filter((child) => child.name === name) };
}

function mustNotDraw(): number {
  throw new Error('drew');
}

describe('the gateway’s dates', () => {
  it('are RFC 1123 in Kyiv’s time with its numeric zone, cut to the second', () => {
    expect(gatewayDate(AT)).toBe('Wed, 28 Mar 2007 12:35:00 +0300');
    expect(gatewayDate(Date.UTC(2026, 0, 1, 23, 5, 9))).toBe('Fri, 02 Jan 2026 01:05:09 +0200');
  });

  it('agree with the time zone database at every hour of four years', () => {
    const kyiv = new Intl.DateTimeFormat('en-GB', { timeZone: 'Europe/Kyiv', dateStyle: 'short', timeStyle: 'medium' });
    for (let at = Date.UTC(2024, 0, 1); at < Date.UTC(2028, 0, 1); at += 3_600_000) {
      const written = gatewayDate(at);
      expect(new Date(written).getTime()).toBe(at);
      expect(kyiv.format(at)).toContain(written.slice(17, 25));
    }
  });
});

describe('reply forms', () => {
  const answer = { id: ID, date: AT, state: 'Accepted' };

  it('classic has the id and the date as attributes', () => {
    expect(xmlReply('classic', answer)).toBe(
      `<status id='${ID}' date='Wed, 28 Mar 2007 12:35:00 +0300'><state>Accepted</state></status>`,
    );
  });

  it('element has the id as an element', () => {
    const { root, all } = parse(xmlReply('element', answer));
    expect(root.attributes).toEqual({ date: 'Wed, 28 Mar 2007 12:35:00 +0300' });
    expect(all('id').map((each) => each.text)).toEqual([ID]);
    expect(all('state').map((each) => each.text)).toEqual(['Accepted']);
  });

  it('detail has a summary state and ours beside our id in a detail', () => {
    const { all } = parse(xmlReply('detail', { ...answer, state: 'Delivered' }));
    expect(all('state').map((each) => each.text)).toEqual(['sending']);
    const [detail] = all('detail');
    expect(detail!.children.map((each) => (each as XmlElement).text)).toEqual([ID, 'Delivered']);
  });

  it('lists has our state where our id is, and another SMS with another state before it', () => {
    const { all } = parse(xmlReply('lists', { ...answer, state: 'Delivered' }));
    const place = all('id').findIndex((each) => each.text === ID);
    expect(place).toBe(1);
    expect(all('state').map((each) => each.text)).toEqual(['Enroute', 'Delivered']);
  });

  it('a refusal has no id, an empty date and its reason, in every form', () => {
    for (const form of FORMS) {
      expect(xmlReply(form, { state: 'Rejected', error: 'uniq_key dupe' })).toBe(
        "<status date=''><state error='uniq_key dupe'>Rejected</state></status>",
      );
    }
  });

  it('every form stays well formed and repeats ext_id, whatever the words are', () => {
    const nasty = `<&>'"`;
    for (const form of FORMS) {
      const { root } = parse(xmlReply(form, { id: ID, date: AT, state: nasty, extId: nasty, error: nasty }));
      const text = JSON.stringify(root);
      expect(text.split(JSON.stringify(nasty)).length - 1).toBe(3);
    }
  });

  it('JSON writes the id as a number with all its digits', () => {
    const text = jsonReply({ id: LONG_ID, date: AT, state: 'Delivered' });
    expect(text).toContain(`"id":${LONG_ID},`);
    expect(JSON.parse(jsonReply(answer))).toEqual({
      state: { value: 'Accepted' },
      id: Number(ID),
      date: 'Wed, 28 Mar 2007 12:35:00 +0300',
      execTime: 3,
    });
    expect(JSON.parse(jsonReply({ state: 'Unknown' }))).toMatchObject({ id: null, date: '' });
    expect(jsonReply({ state: 'Rejected', error: 'Prepaid bill error' })).toBe('{"error":"Prepaid bill error"}');
  });
});

describe('requests', () => {
  it.each([
    [`<request id="${ID}">status</request>`, false, ID],
    [`<?xml version="1.0" encoding="utf-8"?>\n<request id='${LONG_ID}'> state </request>\n`, false, LONG_ID],
    [`{"extended":true,"id":${LONG_ID},"value":"state"}`, true, LONG_ID],
    [`{ "value": "state", "id": "${ID}" }`, true, ID],
    [`<request id="${ID}">details</request>`, false, undefined],
    [`<request id="${ID}">status`, false, undefined],
    [`<request id="">status</request>`, false, undefined],
    [`{"extended":true,"id":${ID}}`, true, undefined],
    [`{"extended":true,"id":${ID},"value":"state"}`, false, undefined],
    ['', false, undefined],
  ])('%s (JSON: %s) asks for %s', (text, json, id) => {
    expect(askedId(text, json)).toBe(id);
  });

  it('reads a message in XML with its escapes decoded', () => {
    const xml =
      '<message><service id="single" source="CLINIC" uniq_key="k1" validity="+30 min"/><to ext_id="9">380001234567</to>' +
      '<body content-type="text/plain">a &lt;b&gt; &amp; &#1082;<![CDATA[ <c>]]></body></message>';
    expect(sentMessage(xml, false)).toEqual({
      mode: 'single',
      source: 'CLINIC',
      uniqueKey: 'k1',
      to: [{ number: '380001234567', extId: '9' }],
      body: 'a <b> & к <c>',
    });
  });

  it('reads a message in JSON', () => {
    const json = { id: 'single', extended: true, source: 'CLINIC', type: 'SMS', to: [{ msisdn: '380001234567' }] };
    expect(sentMessage(JSON.stringify({ ...json, body: { value: 'text' } }), true)).toMatchObject({
      mode: 'single',
      source: 'CLINIC',
      to: [{ number: '380001234567' }],
      body: 'text',
    });
    expect(sentMessage('{"id":"single"}', true)).toBeUndefined();
  });

  it.each(['', 'text', '<message>', '<other><service/></other>', '<message><to>380001234567</to></message>'])(
    'does not recognise %j as a message',
    (text) => expect(sentMessage(text, false)).toBeUndefined(),
  );

  const good: Message = {
    mode: 'single',
    source: undefined,
    uniqueKey: 'new',
    to: [{ number: '+380001234567', extId: undefined }],
    body: 'text',
  };
  const to = (number: string) => ({ ...good, to: [{ number, extId: undefined }] });
  it.each([
    ['a good message', good, undefined],
    ['an empty text', { ...good, body: '  ' }, 'Message text not found'],
    ['a number that is none', to('abc'), 'Invalid abonent number'],
    ['no number', { ...good, to: [] }, 'Invalid abonent number'],
    ['a foreign number', to('4800012345678'), 'Unknown operator code 480'],
    ['a source that is too long', { ...good, source: 'TWELVELETTER' }, 'Invalid source number'],
    ['a key that was used', { ...good, uniqueKey: 'used' }, 'uniq_key dupe'],
    ['a bulk of one', { ...good, mode: 'bulk' }, '2 or more numbers required for bulk or individual mode'],
  ])('answers %s with the known reason', (_, message, reason) => {
    expect(refusal(message, (key) => key === 'used')).toBe(reason);
  });
});

describe('faults', () => {
  it('are drawn by their shares, one at the most', () => {
    const random = seededRandom(5);
    const faults = { error: 0.2, silence: 0.1, 'wrong-id': 0.05 };
    const drawn = Array.from({ length: 50_000 }, () => drawFault(faults, random, 0));
    const share = (kind: string | undefined) => drawn.filter((each) => each === kind).length / drawn.length;
    expect(share('error')).toBeCloseTo(0.2, 2);
    expect(share('silence')).toBeCloseTo(0.1, 2);
    expect(share('wrong-id')).toBeCloseTo(0.05, 2);
    expect(share(undefined)).toBeCloseTo(0.65, 2);
  });

  it('befall every request at a share of 1 and none without shares, drawing nothing', () => {
    for (const kind of FAULT_KINDS) expect(drawFault({ [kind]: 1 }, () => 0.999, 0)).toBe(kind);
    expect(drawFault({ latencyMs: 5, retryAfter: 2 }, mustNotDraw, 0)).toBeUndefined();
    expect(drawFault({ error: 1, from: 10 }, mustNotDraw, 9)).toBeUndefined();
    expect(drawFault({ error: 1, until: 10 }, mustNotDraw, 10)).toBeUndefined();
    expect(drawFault({ error: 1, from: 10, until: 20 }, () => 0.5, 10)).toBe('error');
    expect(shareOf({ error: 0.25, latencyMs: 900, busy: 0.5 })).toBe(0.75);
  });
});

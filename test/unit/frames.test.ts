import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createFrames } from '../../src/replication/frames.ts';

const message = (kind: string, body: Buffer) => {
  const head = Buffer.alloc(5);
  head.write(kind, 0, 'latin1');
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, body]);
};
const data = (payload: Buffer) => message('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(24), payload]));
const keepalive = (position: bigint, asks: boolean) => {
  const body = Buffer.alloc(18);
  body.write('k', 0, 'latin1');
  body.writeBigUInt64BE(position, 1);
  body.writeInt8(asks ? 1 : 0, 17);
  return message('d', body);
};

type Sent = { kind: 'data' | 'other'; body: string } | { kind: 'keepalive'; position: bigint; asks: boolean };

const body = fc.string({ maxLength: 40 });
const sent: fc.Arbitrary<Sent> = fc.oneof(
  fc.record({ kind: fc.constant('data' as const), body }),
  fc.record({ kind: fc.constant('other' as const), body }),
  fc.record({ kind: fc.constant('keepalive' as const), position: fc.bigInt(0n, 2n ** 64n - 1n), asks: fc.boolean() }),
);

const bytesOf = (each: Sent) => {
  if (each.kind === 'keepalive') return keepalive(each.position, each.asks);
  return each.kind === 'data' ? data(Buffer.from(each.body)) : message('N', Buffer.from(each.body));
};

test('every message comes out once, in order and whole, wherever the bytes are cut', () => {
  fc.assert(
    fc.property(fc.array(sent, { maxLength: 30 }), fc.array(fc.integer({ min: 1, max: 90 })), (messages, sizes) => {
      const seen: Sent[] = [];
      const frames = createFrames({
        data: (bytes, at) => {
          // a payload has no length of its own: what is expected next says how long it is
          const next = messages[seen.length];
          const length = next?.kind === 'data' ? Buffer.byteLength(next.body) : 0;
          seen.push({ kind: 'data', body: bytes.toString('utf8', at, at + length) });
        },
        keepalive: (position, asks) => seen.push({ kind: 'keepalive', position, asks }),
        other: (bytes) => seen.push({ kind: 'other', body: bytes.toString('utf8', 5) }),
      });
      const all = Buffer.concat(messages.map(bytesOf));
      let at = 0;
      for (const size of [...sizes, all.length + 1]) {
        frames(Buffer.from(all.subarray(at, at + size)));
        at = Math.min(all.length, at + size);
      }
      expect(seen).toEqual(messages);
    }),
  );
});

/** Examples of outside bytes, spoiled. */
import * as fc from 'fast-check';

type Spoil = {
  readonly how: 'flip' | 'cut' | 'drop' | 'twice' | 'put';
  readonly at: number;
  readonly length: number;
  readonly bytes: Uint8Array;
};

const spoil: fc.Arbitrary<Spoil> = fc.record({
  how: fc.constantFrom('flip' as const, 'cut' as const, 'drop' as const, 'twice' as const, 'put' as const),
  at: fc.nat(4_000),
  length: fc.nat(40),
  bytes: fc.oneof(
    fc.uint8Array({ maxLength: 8 }),
    fc
      .constantFrom(
        '\0',
        '\xff\xff\xff\xff',
        '\x7f\xff\xff\xff',
        '<',
        '>',
        '&',
        '"',
        '{',
        '[',
        '\\',
        '%',
        ':',
        '=',
        '@',
        ',',
      )
      .map((text) => Buffer.from(text, 'latin1')),
  ),
});

/** One of `examples`, spoiled in up to four places. */
export function spoiled(examples: readonly (string | Buffer)[]): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.constantFrom(...examples), fc.array(spoil, { maxLength: 4 }))
    .map(([example, spoils]) => spoils.reduce(take, Buffer.from(example as string)));
}

export function spoiledText(examples: readonly string[]): fc.Arbitrary<string> {
  return fc.oneof(spoiled(examples).map(String), fc.string({ unit: 'binary', maxLength: 60 }));
}

function take(bytes: Buffer, { how, at: place, length, bytes: put }: Spoil): Buffer {
  const at = place % (bytes.length + 1);
  const [before, some, after] = [bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at + length)];
  switch (how) {
    case 'flip':
      return Buffer.concat([before, some.map((byte) => byte ^ (1 << (place % 8))), after]);
    case 'cut':
      return before;
    case 'drop':
      return Buffer.concat([before, after]);
    case 'twice':
      return Buffer.concat([before, some, some, after]);
    case 'put':
  }
  return Buffer.concat([before, put, bytes.subarray(at + put.length)]);
}

/** `bytes` in pieces of `sizes`, again and again. */
export function pieces(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const all: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const size = sizes[i % sizes.length] ?? bytes.length;
    all.push(Buffer.from(bytes.subarray(at, at + size)));
    at += size;
  }
  return all;
}

export const cuts = fc.array(fc.integer({ min: 1, max: 90 }), { maxLength: 8 });

/** Runs `work`, whose own refusals `isRefusal` knows; anything else that it throws is a fault. */
export function orRefused<T>(work: () => T, isRefusal: (error: unknown) => boolean): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isRefusal(error)) throw error;
    return undefined;
  }
}

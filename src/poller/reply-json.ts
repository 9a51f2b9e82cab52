import { z } from 'zod';
import { ReplyFault, type Found } from './reply-fault.ts';

const id = z.union([z.string().max(64), z.int().nonnegative().transform(String)]);
const shape = z.object({
  state: z.union([
    z.object({ value: z.string().max(200), error: z.string().max(400).optional() }),
    z
      .string()
      .max(200)
      .transform((value) => ({ value, error: undefined })),
  ]),
  id: id.nullish(),
  date: z.string().max(100).nullish(),
});

/** Strings pass, and whole numbers that a double may not hold are put into quotes: an id has up to 25 digits and must keep them. */
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Reads the JSON form. Throws a ReplyFault. */
export function readJson(text: string): Found {
  if (/"error"\s*:/.test(text) && !/"state"\s*:/.test(text)) {
    throw new ReplyFault(/unauthori[sz]ed|\b401\b/i.test(text) ? 'unauthorized' : 'gateway_error');
  }
  // JSON.parse would silently take the last of two
  for (const key of [/"state"\s*:/g, /"id"\s*:/g]) {
    if ((text.match(key) ?? []).length > 1) throw new ReplyFault('two_states');
  }
  const parsed = shape.safeParse(parseJson(text));
  if (!parsed.success) throw new ReplyFault('json');
  const { state, date } = parsed.data;
  return { id: parsed.data.id ?? undefined, word: state.value, date: date ?? '', error: state.error };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text.replace(TOKEN, (token) => (/^\d{16,}$/.test(token) ? `"${token}"` : token)));
  } catch {
    throw new ReplyFault('json');
  }
}

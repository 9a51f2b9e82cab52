import * as z from 'zod';
import { ReplyFault, type Found } from './reply-fault.ts';

const id = z.union([z.string().trim().max(64), z.int().nonnegative().transform(String)]);
/** An optional text: an invalid one counts as empty, so that it does not invalidate the status. */
const optional = (length: number) => z.string().max(length).catch('').nullish();
const shape = z.object({
  state: z.union([
    z.object({ value: z.string().max(200), error: optional(400) }),
    z
      .string()
      .max(200)
      .transform((value) => ({ value, error: undefined })),
  ]),
  id: id.nullish(),
  date: optional(100),
});
const failure = z.object({
  error: z.unknown().refine((error) => error !== undefined),
  state: z.undefined().optional(),
});

const MAX_DEPTH = 4;
/** A token: a string, with the colon that makes it a name; a number; or another token of JSON. */
const TOKEN = /\s*(?:("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*)|([{}[\],]|true|false|null))/y;

/** Reads the JSON format. Throws a ReplyFault. */
export function readJson(text: string): Found {
  const value = parse(normalized(text));
  const refused = failure.safeParse(value);
  if (refused.success) {
    const error = JSON.stringify(refused.data.error);
    throw new ReplyFault(/unauthori[sz]ed|^"?401\b|"code":"?401\b/i.test(error) ? 'unauthorized' : 'gateway_error');
  }
  const parsed = shape.safeParse(value);
  if (!parsed.success) throw new ReplyFault('json');
  const { state, date } = parsed.data;
  return { id: parsed.data.id || undefined, word: state.value, date: date ?? '', error: state.error ?? undefined };
}

/**
 * Prepares the text for JSON.parse: quotes long integers, because ids have up to 25 digits and a double would round them, and rejects duplicate names, of which
 * JSON.parse takes the last. One pass in linear time.
 */
function normalized(text: string): string {
  const names: Set<string>[] = [];
  let out = '';
  TOKEN.lastIndex = 0;
  for (let at = 0; at < text.length; at = TOKEN.lastIndex) {
    const match = TOKEN.exec(text);
    if (match === null) throw new ReplyFault('json');
    const [token, string, colon, number, other] = match;
    if (string !== undefined && colon !== undefined) {
      const name = String(parse(string));
      if (names.at(-1)?.has(name) === true) throw new ReplyFault('two_states');
      names.at(-1)?.add(name);
    }
    if (other === '{' || other === '[') names.push(new Set());
    if (other === '}' || other === ']') names.pop();
    if (names.length > MAX_DEPTH) throw new ReplyFault('too_deep');
    out += number !== undefined && /^\d{16,}$/.test(number) ? `"${number}"` : token;
  }
  return out;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ReplyFault('json');
  }
}

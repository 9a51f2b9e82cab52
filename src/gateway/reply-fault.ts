/** What is no status: fixed words, never the reply's own. */
export type Fault =
  | 'empty'
  | 'encoding'
  | 'plain_text'
  | 'not_recognized'
  | 'gateway_error'
  | 'xml'
  | 'doctype'
  | 'instruction'
  | 'too_many_elements'
  | 'too_deep'
  | 'root'
  | 'two_states'
  | 'no_state'
  | 'lists'
  | 'json'
  | 'unexpected_error';

/** What the readers of XML and JSON hand back: texts, bounded and not yet judged. */
export interface Found {
  readonly id: string | undefined;
  readonly word: string;
  readonly date: string;
  readonly error: string | undefined;
}

/** A reply that cannot be read; `why` is all that is told of it. */
export class ReplyFault extends Error {
  readonly why: Fault | 'mismatch' | 'unauthorized';

  constructor(why: Fault | 'mismatch' | 'unauthorized') {
    super(why);
    this.why = why;
  }
}

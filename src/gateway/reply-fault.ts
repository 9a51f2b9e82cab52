/** Why a reply contains no status: fixed words, never text of the reply. */
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

/** What the XML and JSON readers return: texts of bounded length, not yet validated. */
export interface Found {
  readonly id: string | undefined;
  readonly word: string;
  readonly date: string;
  readonly error: string | undefined;
}

/** A reply that cannot be read; only `why` is reported. */
export class ReplyFault extends Error {
  readonly why: Fault | 'mismatch' | 'unauthorized';

  constructor(why: Fault | 'mismatch' | 'unauthorized') {
    super(why);
    this.why = why;
  }
}

/** What a write of a term that is over ends with. */
import { SmslogdError } from '../errors.ts';

export function steppedDown(): SmslogdError {
  return new SmslogdError('stepped_down', 'another daemon leads, or this one starts over');
}

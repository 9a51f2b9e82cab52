import { saslprep } from '@mongodb-js/saslprep';

/**
 * SASLprep as libpq and the server have it: characters are judged as they were typed, before NFKC makes others of them; RFC 4013 and our library judge
 * afterwards. So the library gets a text in which each character that would change its kind is one that keeps it, and none meets the next. What is forbidden
 * is taken as it is.
 */
export function prepared(password: string): string {
  const mapped = password.replaceAll(SPACE, ' ').replaceAll(NOTHING, '');
  if (GONE_WHEN_NORMALIZED.test(mapped)) return password;
  const judged = mapped.replaceAll(RIGHT_TO_LEFT, '\u05d0').replaceAll(LEFT_TO_RIGHT, 'a').replaceAll(NEUTRAL, '-');
  try {
    saslprep(Array.from(judged).join('-'));
    return mapped.normalize('NFKC') || password;
  } catch {
    return password;
  }
}

/** RFC 3454, tables C.1.2 and B.1. */
const SPACE = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;
// oxlint-disable-next-line no-misleading-character-class -- each stands for itself
const NOTHING = /[\u00ad\u034f\u1806\u180b-\u180d\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]/gu;
/** What RFC 3454 forbids, or Unicode 3.2 did not have (tables C.8 and A.1), and NFKC makes another character of; in ranges that hold nothing else but such. */
const GONE_WHEN_NORMALIZED =
  /[\u0340\u0341\u03f9\u10fc\u1d2c-\u1dbf\u2090-\u209c\u213b\u213c\u2150-\u2152\u2189\u2c7c\u2c7d\u321d\u321e\u3244-\u3250\u327c-\u327e\u32cc-\u32cf\u32ff\u3377-\u337a\u33de\u33df\u33ff\ua69c-\uab69\ufa2e\ufa2f\ufa6b-\ufad9\ufe10-\ufe19\ufe47\ufe48\u{10781}-\u{1ccf9}\u{1d4c1}\u{1d6a4}\u{1d7ca}\u{1d7cb}\u{1e030}-\u{1fbf9}]/u;
/** What tables D.1 and D.2 have, or have not, as one kind, and NFKC makes another kind of: U+FB1D ends in a point that has no direction, `№` becomes letters. */
const RIGHT_TO_LEFT =
  /[\ufb1d\ufb1f-\ufb28\ufb2a-\ufb36\ufb38-\ufb3c\ufb3e\ufb40\ufb41\ufb43\ufb44\ufb46-\ufbb1\ufbd3-\ufd3d\ufd50-\ufd8f\ufd92-\ufdc7\ufdf0-\ufdfc\ufe70-\ufe74\ufe76-\ufefc]/gu;
const LEFT_TO_RIGHT = /[\u037a\u2135-\u2138\uff9e\uff9f\u{1d6c1}-\u{1d7c3}]/gu;
const NEUTRAL = /[\u20a8\u2100\u2101\u2103\u2105\u2106\u2109\u2116\u2120-\u2122\u2e9f\u2ef3\u2f00-\u2fd5]/gu;

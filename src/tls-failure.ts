/** What the code of a failure of TLS means, for the database and for the gateway. */

export type TlsTrouble =
  /** the certificate is not of an authority that is trusted here */
  | 'untrusted'
  /** it is for another host */
  | 'host'
  /** it has expired, or is not valid yet */
  | 'time'
  | 'revoked'
  /** the other side wants a client certificate, or no cipher is common */
  | 'wanted'
  /** it does not take our client certificate */
  | 'refused'
  /** no version of TLS is common */
  | 'version'
  /** a file of ours cannot be used */
  | 'file'
  | 'other';

/** By the beginning or a word of the code; the first that fits counts. */
const PATTERNS: readonly (readonly [RegExp, TlsTrouble])[] = [
  [/^(?:CERT_REVOKED|CRL|UNABLE_TO_GET_CRL)/, 'revoked'],
  [/^(?:UNABLE_TO|SELF_SIGNED|DEPTH_ZERO|INVALID_CA|CERT_UNTRUSTED|CERT_REJECTED|CERT_SIGNATURE)/, 'untrusted'],
  [/^(?:ERR_TLS_CERT_ALTNAME|HOSTNAME_MISMATCH)/, 'host'],
  [/^CERT_(?:HAS_EXPIRED|NOT_YET)/, 'time'],
  [/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/, 'wanted'],
  [/^ERR_SSL.*ALERT.*(?:CA|CERTIFICATE|EXPIRED|REVOKED)/, 'refused'],
  [/^ERR_SSL.*(?:PROTOCOL|VERSION_TOO)/, 'version'],
  [/^(?:ERR_OSSL|ERR_CRYPTO)/, 'file'],
  [/^(?:ERR_SSL|ERR_TLS|EPROTO$|CERT_)/, 'other'],
];

/** Undefined: not a failure of TLS. */
export function tlsTroubleOf(code: string): TlsTrouble | undefined {
  return PATTERNS.find(([pattern]) => pattern.test(code))?.[1];
}

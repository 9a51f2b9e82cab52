/** TLS with the gateway: its CA, our client certificate, and messages for failures. */
import { readFileSync } from 'node:fs';
import type { Config } from '../settings.ts';
import { tlsTroubleOf, type TlsTrouble } from '../tls-failure.ts';

export interface GatewayTls {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

type Files = Pick<Config, 'IP2SMS_CA_FILE' | 'IP2SMS_CERT_FILE' | 'IP2SMS_KEY_FILE'>;

function file(name: keyof GatewayTls, path: string | undefined): GatewayTls {
  return path === undefined ? {} : { [name]: readFileSync(path) };
}

/** Reads the files; `loadConfig` has checked that they are readable. */
export function gatewayTls(config: Files): GatewayTls {
  return {
    ...file('ca', config.IP2SMS_CA_FILE),
    ...file('cert', config.IP2SMS_CERT_FILE),
    ...file('key', config.IP2SMS_KEY_FILE),
  };
}

const CERTIFICATE = 'its certificate is not trusted';
const MEANINGS: Readonly<Record<TlsTrouble, readonly [says: string, hint: string]>> = {
  untrusted: [
    CERTIFICATE,
    "If a private CA issued the gateway's certificate, set IP2SMS_CA_FILE to the file with the CA's certificate.",
  ],
  host: [CERTIFICATE, "The gateway's certificate must contain the host name in IP2SMS_URL."],
  time: [CERTIFICATE, "The gateway's certificate has expired or is not yet valid; also check the clock of this host."],
  revoked: [CERTIFICATE, 'The certificate of the gateway was revoked.'],
  wanted: [
    'it requires a client certificate',
    'Set IP2SMS_CERT_FILE and IP2SMS_KEY_FILE to the files of the client certificate and its key.',
  ],
  refused: [
    'it rejects our client certificate',
    'Check the CA and the expiry date of the certificate in IP2SMS_CERT_FILE.',
  ],
  version: ['there is no common TLS version', 'The gateway must offer TLS 1.2 or later.'],
  file: [
    'a certificate or key is invalid',
    'The files of IP2SMS_CA_FILE, IP2SMS_CERT_FILE and IP2SMS_KEY_FILE must be in PEM format, the key without a password.',
  ],
  other: ['the TLS connection fails', "Check the gateway's certificate, and that the port in IP2SMS_URL uses TLS."],
};

/** The message and hint for a TLS failure; undefined if the request failed for another reason. */
export function tlsMeaning(cause: string | undefined): { readonly says: string; readonly hint: string } | undefined {
  const trouble = cause === undefined ? undefined : tlsTroubleOf(cause);
  if (trouble === undefined) return undefined;
  const [says, hint] = MEANINGS[trouble];
  return { says: `${says} (${cause})`, hint };
}

/** The settings whose address would send login and ids in clear text over a network. */
export function clearGateways(config: Pick<Config, 'IP2SMS_URL' | 'IP2SMS_STATUS_URL'>): string[] {
  return (['IP2SMS_URL', 'IP2SMS_STATUS_URL'] as const).filter((name) => {
    const { protocol, hostname } = new URL(config[name] ?? 'https://none');
    return protocol === 'http:' && !/^(?:127\.|\[::1\]$|(?:.+\.)?localhost$)/.test(hostname);
  });
}

/** TLS with the gateway: its own authority, our client certificate, and what a failure means. */
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

/** Reads the files; `loadConfig` has found that they can be read. */
export function gatewayTls(config: Files): GatewayTls {
  return {
    ...file('ca', config.IP2SMS_CA_FILE),
    ...file('cert', config.IP2SMS_CERT_FILE),
    ...file('key', config.IP2SMS_KEY_FILE),
  };
}

const CERTIFICATE = 'its certificate is not to be trusted';
const MEANINGS: Readonly<Record<TlsTrouble, readonly [says: string, hint: string]>> = {
  untrusted: [
    CERTIFICATE,
    "Where the gateway's certificate is of an authority of its own, IP2SMS_CA_FILE names the file with that authority's certificate.",
  ],
  host: [CERTIFICATE, 'The host name in IP2SMS_URL must be in the certificate of the gateway.'],
  time: [
    CERTIFICATE,
    'The certificate of the gateway has expired or is not valid yet; check the clock of this host, too.',
  ],
  revoked: [CERTIFICATE, 'The certificate of the gateway was revoked.'],
  wanted: [
    'it wants a client certificate',
    'IP2SMS_CERT_FILE and IP2SMS_KEY_FILE name the files of the client certificate and its key.',
  ],
  refused: [
    'it does not take our client certificate',
    'Check the certificate in IP2SMS_CERT_FILE: its authority, its end.',
  ],
  version: ['no version of TLS is common', 'The gateway must offer TLS 1.2 or later.'],
  file: [
    'a certificate or key cannot be used',
    'The files of IP2SMS_CA_FILE, IP2SMS_CERT_FILE and IP2SMS_KEY_FILE must be in PEM form, the key without a password.',
  ],
  other: [
    'TLS with it fails',
    'Check the certificate of the gateway, and that IP2SMS_URL leads to a port that speaks TLS.',
  ],
};

/** What a failed request says of TLS; undefined where it failed for another reason. */
export function tlsMeaning(cause: string | undefined): { readonly says: string; readonly hint: string } | undefined {
  const trouble = cause === undefined ? undefined : tlsTroubleOf(cause);
  if (trouble === undefined) return undefined;
  const [says, hint] = MEANINGS[trouble];
  return { says: `${says} (${cause})`, hint };
}

/** The settings whose address sends login and ids in clear text over a network. */
export function clearGateways(config: Pick<Config, 'IP2SMS_URL' | 'IP2SMS_STATUS_URL'>): string[] {
  return (['IP2SMS_URL', 'IP2SMS_STATUS_URL'] as const).filter((name) => {
    const { protocol, hostname } = new URL(config[name] ?? 'https://none');
    return protocol === 'http:' && !/^(?:127\.|\[::1\]$|(?:.+\.)?localhost$)/.test(hostname);
  });
}

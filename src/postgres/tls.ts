/** TLS as libpq has it: which files count, what is checked of the server, and what a failure means. */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import {
  createSecureContext,
  rootCertificates,
  type ConnectionOptions,
  type PeerCertificate,
  type SecureContext,
  type SecureContextOptions,
  type SecureVersion,
} from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { codeOf, SmslogdError, toSmslogdError } from '../errors.ts';
import { whyUnreadable } from '../secret-file.ts';
import { tlsTroubleOf, type TlsTrouble } from '../tls-failure.ts';
import type { TlsSettings } from './address.ts';
import { homeFolder } from './home.ts';
import { failure } from './messages.ts';

/** What Node.js takes for a handshake with the host `name`. The files are read each time: a renewed certificate needs no restart. Throws database_tls. */
export function tlsOptions(tls: TlsSettings, name: string): ConnectionOptions {
  const ca = tls.rootCert === 'system' ? systemRoots() : fileOf('sslrootcert', tls.rootCert, 'root.crt');
  const verifies = tls.mode.startsWith('verify');
  if (ca === undefined && verifies)
    throw tlsError(
      `sslmode=${tls.mode} has no root certificate to verify the server with: no sslrootcert, and no file ~/.postgresql/root.crt`,
      UNTRUSTED_HINT,
    );
  const cert = tls.sendsCert ? fileOf('sslcert', tls.cert, 'postgresql.crt') : undefined;
  const key = cert === undefined ? undefined : fileOf('sslkey', tls.key, 'postgresql.key', true);
  if (cert !== undefined && key === undefined)
    throw tlsError('there is a client certificate without its key', 'Name the file of the key with sslkey=.');
  const crl = fileOf('sslcrl', tls.crl, 'root.crl');
  return {
    secureContext: contextOf({
      ca,
      cert,
      key,
      crl: ca === undefined || crl === undefined ? undefined : listsOf(crl),
      passphrase: tls.keyPassword,
      minVersion: tls.minVersion as SecureVersion,
      maxVersion: tls.maxVersion as SecureVersion | undefined,
    }),
    ...(tls.sendsName && isIP(name) === 0 ? { servername: name } : {}),
    ...(tls.direct ? { ALPNProtocols: ['postgresql'] } : {}),
    // also without sslmode=verify-…, as libpq: a root certificate is there to be used
    rejectUnauthorized: ca !== undefined,
    checkServerIdentity: (_, seen) => (tls.mode === 'verify-full' ? identityProblem(name, seen) : undefined),
  };
}

/** Each list of a file: a chain of authorities has several, of which Node.js would take the first alone. What holds none is told of by its parser. */
function listsOf(crl: Buffer): string[] {
  const text = crl.toString('latin1');
  return text.match(/-----BEGIN X509 CRL-----.*?-----END X509 CRL-----/gs) ?? [text];
}

let made: { readonly options: SecureContextOptions; readonly context: SecureContext } | undefined;

/** The last one where nothing has changed: to parse a system's certificates takes longer than all else of a login, and a daemon logs in ten times. */
function contextOf(options: SecureContextOptions): SecureContext {
  try {
    if (!isDeepStrictEqual(options, made?.options)) made = { options, context: createSecureContext(options) };
    return made!.context;
  } catch (error) {
    throw tlsFailure(error);
  }
}

/** As libpq: a DNS name counts for an IP address in words, too; the common name where there is no name of the host's kind. */
function identityProblem(host: string, seen: PeerCertificate): Error | undefined {
  // what stands in quotes has characters that no host has
  const names = (seen.subjectaltname ?? '').replaceAll(/"(?:[^"\\]|\\.)*"/g, '').split(', ');
  const isAddress = isIP(host) !== 0;
  const ofKind = names.some((name) => name.startsWith(isAddress ? 'IP Address:' : 'DNS:'));
  const counted = names.filter((name) => name.startsWith('DNS:')).map((name) => name.slice(4));
  if (!ofKind) counted.push([seen.subject.CN].flat()[0] ?? '');
  const fits = counted.some((name) => isFor(name.toLowerCase(), host.toLowerCase()));
  if (fits || (isAddress && new X509Certificate(seen.raw).checkIP(host) !== undefined)) return undefined;
  return failure('ERR_TLS_CERT_ALTNAME_INVALID', 'another host');
}

/** A wildcard is a whole label, the first, and stands for one. */
function isFor(name: string, host: string): boolean {
  if (!name.startsWith('*.')) return host !== '' && name === host;
  return host.endsWith(name.slice(1)) && /^[^.]+$/.test(host.slice(0, 1 - name.length));
}

/** Where systems keep the certificates that they trust; OpenSSL's variable comes first. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

function systemRoots(): string | Buffer | string[] {
  const file = [process.env['SSL_CERT_FILE'] ?? '', ...SYSTEM_ROOTS].find((path) => path !== '' && existsSync(path));
  return file === undefined ? [...rootCertificates] : readFileSync(file);
}

/** The content of a file that is named, or of libpq's own file where that exists. */
function fileOf(parameter: string, named: string | undefined, usual: string, secret = false): Buffer | undefined {
  const path = named ?? usualFile(usual);
  if (named === undefined && !existsSync(path)) return undefined;
  const what = named === undefined ? `the file ~/.postgresql/${usual}` : `the file of ${parameter}`;
  try {
    if (secret && isOpenToOthers(path))
      throw tlsError(
        `${what} is open to others`,
        'Its permissions must be u=rw (0600), or u=rw,g=r (0640) where root owns it.',
      );
    return readFileSync(path);
  } catch (error) {
    if (error instanceof SmslogdError) throw error;
    throw tlsError(
      `${what} cannot be read (${codeOf(error)})`,
      `Check the path and the permissions of ${what}.`,
      error,
    );
  }
}

/** Whether the server's certificate is checked against an authority: by its mode, or as a root certificate is there. */
export function verifies(tls: TlsSettings): boolean {
  const encrypts = tls.mode === 'require' || tls.mode.startsWith('verify');
  return encrypts && (tls.mode !== 'require' || tls.rootCert !== undefined || existsSync(usualFile('root.crt')));
}

function usualFile(name: string): string {
  return join(homeFolder(), '.postgresql', name);
}

/** The parameter whose file is named and cannot be read, and why. */
export function unreadableFile(tls: TlsSettings): { readonly parameter: string; readonly why: string } | undefined {
  const files = { sslrootcert: tls.rootCert, sslcert: tls.cert, sslkey: tls.key, sslcrl: tls.crl };
  for (const [parameter, path] of Object.entries(files)) {
    const why = path === undefined || path === 'system' ? undefined : whyUnreadable(path);
    if (why !== undefined) return { parameter, why };
  }
  return undefined;
}

function isOpenToOthers(path: string): boolean {
  const { mode, uid } = statSync(path);
  return (mode & (uid === 0 ? 0o037 : 0o077)) !== 0;
}

const UNTRUSTED_HINT =
  "Name the file with the certificate of the server's authority with sslrootcert=FILE, or sslrootcert=system for the authorities that this system trusts.";

export const CERTIFICATE_HINT = 'Name the files of the client certificate and its key with sslcert= and sslkey=.';

export function tlsError(sentence: string, hint?: string, cause?: unknown): SmslogdError {
  return new SmslogdError('database_tls', sentence, { cause, ...(hint === undefined ? {} : { hint }) });
}

const MEANINGS: Readonly<Record<TlsTrouble, readonly [says: string, hint?: string]>> = {
  untrusted: ["the server's certificate is not of a trusted authority", UNTRUSTED_HINT],
  host: [
    "the server's certificate is not for the host of the address",
    'Use a host name that is in the certificate (hostaddr= gives the IP address apart), renew the certificate with this name, or use sslmode=verify-ca.',
  ],
  time: [
    "the server's certificate is not valid at this time",
    "Renew the server's certificate, and check both clocks.",
  ],
  revoked: ["the server's certificate was revoked, or the file of sslcrl does not fit"],
  wanted: ['the server wants a client certificate, or none of its ciphers is known here', CERTIFICATE_HINT],
  refused: [
    'the server does not take the client certificate',
    "Let sslcert= be a valid certificate of an authority that the server's ssl_ca_file names.",
  ],
  version: [
    'there is no version of TLS that both sides take',
    "Compare the server's ssl_min_protocol_version with the parameters ssl_min_protocol_version and ssl_max_protocol_version.",
  ],
  file: [
    'a file of sslrootcert, sslcert, sslkey or sslcrl cannot be used',
    'Each file must be in PEM form, and the key of sslkey= that of the certificate; sslpassword= decrypts it.',
  ],
  other: ['the TLS handshake failed'],
};

/** The path died, or the other side ended the connection without a word of TLS: no certificate need be wrong. */
export class TlsCutOff extends SmslogdError {
  constructor(code: string, cause: unknown) {
    super('database_unreachable', `the connection ended while TLS began (${code})`, { cause });
  }
}

/** What a failure while TLS begins means; an SmslogdError stays. */
export function tlsFailure(error: unknown): SmslogdError {
  if (error instanceof SmslogdError) return error;
  const code = codeOf(error) ?? 'no code';
  if (toSmslogdError(error).code === 'database_unreachable') return new TlsCutOff(code, error);
  const [says, hint] = MEANINGS[tlsTroubleOf(code) ?? 'other'];
  return tlsError(`${says} (${code})`, hint, error);
}

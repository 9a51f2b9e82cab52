/** A certificate authority of the test's own, made by the openssl program in a temporary directory. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Certificate {
  readonly certFile: string;
  /** readable by its owner alone, as PostgreSQL and libpq demand */
  readonly keyFile: string;
}

export interface CertificateOptions {
  /** DNS names and IP addresses that a server's certificate is for; `DNS:` before one makes it a name */
  readonly hosts?: readonly string[];
  /** the common name: of a client's certificate the role that logs in with it */
  readonly name?: string;
  /** -1: it has expired */
  readonly days?: number;
  /** the key is encrypted with it */
  readonly password?: string;
  /** whose files they become: the server's data directory, whose account must read the key */
  readonly ownedAs?: string;
}

export interface Authority {
  readonly caFile: string;
  issue(options: CertificateOptions): Certificate;
  /** a list of revoked certificates, which may be empty; the file */
  revoke(...certificates: readonly Certificate[]): string;
  remove(): void;
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];

function openssl(...words: string[]): void {
  execFileSync('openssl', words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Makes the authority. `name`: its subject, for tests with several. */
export function createAuthority(name = 'smslogd test authority'): Authority {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-certificates-'));
  chmodSync(directory, 0o755);
  const path = (file: string) => join(directory, file);
  openssl(
    'req',
    '-x509',
    ...KEY,
    '-nodes',
    '-subj',
    `/CN=${name}`,
    '-days',
    '30',
    '-keyout',
    path('ca.key'),
    '-out',
    path('ca.crt'),
  );
  let issued = 0;
  return {
    caFile: path('ca.crt'),
    issue: ({ hosts = [], name: subject = hosts[0] ?? 'nobody', days = 30, password, ownedAs }) => {
      issued += 1;
      const [key, request, cert, extensions] = ['key', 'csr', 'crt', 'ext'].map((end) => path(`${issued}.${end}`)) as [
        string,
        string,
        string,
        string,
      ];
      const secret = password === undefined ? ['-nodes'] : ['-passout', `pass:${password}`];
      openssl('req', '-new', ...KEY, ...secret, '-subj', `/CN=${subject}`, '-keyout', key, '-out', request);
      const names = hosts
        .map((host) => (host.startsWith('DNS:') ? host : `${isIP(host) === 0 ? 'DNS' : 'IP'}:${host}`))
        .join(',');
      writeFileSync(extensions, `basicConstraints=CA:FALSE\n${names === '' ? '' : `subjectAltName=${names}\n`}`);
      const issuer = ['-CA', path('ca.crt'), '-CAkey', path('ca.key'), '-CAcreateserial'];
      openssl('x509', '-req', '-in', request, ...issuer, '-days', String(days), '-extfile', extensions, '-out', cert);
      chmodSync(key, 0o600);
      if (ownedAs !== undefined) {
        const { uid, gid } = statSync(ownedAs);
        chownSync(key, uid, gid);
      }
      return { certFile: cert, keyFile: key };
    },
    revoke: (...certificates) => {
      const config = path('ca.cnf');
      const ca = `database=${path('ca.index')}\ncertificate=${path('ca.crt')}\nprivate_key=${path('ca.key')}\ndefault_md=sha256\ndefault_crl_days=30\n`;
      writeFileSync(config, `[ca]\ndefault_ca=own\n[own]\n${ca}`);
      writeFileSync(path('ca.index'), '');
      for (const { certFile } of certificates) openssl('ca', '-config', config, '-revoke', certFile);
      const list = path(`${certificates.length}.crl`);
      openssl('ca', '-config', config, '-gencrl', '-out', list);
      return list;
    },
    remove: () => rmSync(directory, { recursive: true, force: true }),
  };
}

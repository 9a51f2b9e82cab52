import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:tls';
import { expect, test } from 'vitest';
import { createAuthority } from '../support/certificates.ts';

test("the tests' authority is trusted by who names it, for the hosts of a certificate and while it is valid", async () => {
  const authority = createAuthority();
  const ca = readFileSync(authority.caFile);
  const outcome = async (hosts: string[], days: number, trusted?: Buffer) => {
    const { certFile, keyFile } = authority.issue({ hosts, days });
    const server = createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = connect({ port, host: '127.0.0.1', ...(trusted === undefined ? {} : { ca: trusted }) });
    const said = await once(client, 'secureConnect').then(
      () => 'trusted',
      (error: NodeJS.ErrnoException) => error.code,
    );
    client.destroy();
    server.close();
    return said;
  };
  try {
    expect(await outcome(['127.0.0.1'], 1, ca)).toBe('trusted');
    expect(await outcome(['localhost'], 1, ca)).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
    expect(await outcome(['127.0.0.1'], -1, ca)).toBe('CERT_HAS_EXPIRED');
    expect(await outcome(['127.0.0.1'], 1)).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE');
  } finally {
    authority.remove();
  }
});

import { expect, test } from 'vitest';
import { pgConfig } from '../../src/postgres/address.ts';

test('with verify-full the certificate must name the host, an IP address too', async () => {
  for (const [address, host] of [
    ['192.0.2.1', '192.0.2.1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['db.example', 'db.example'],
  ] as const) {
    const { ssl } = await pgConfig(`postgres://user@${address}/name?sslmode=verify-full`, { name: 'test' });
    expect(ssl).toEqual({ rejectUnauthorized: true, host });
  }
});

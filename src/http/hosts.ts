/**
 * Which names the daemon answers to. A web page can let a name of its own lead to this host (DNS rebinding) and then read what is served here as its
 * own; the browser sends that name as Host. An address cannot be made to lead elsewhere.
 */
import { BlockList, isIP } from 'node:net';

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/**
 * Whether a request with this Host header is answered. A server that listens on a loopback address answers to loopback names and `allowed`; another one,
 * whose names only its operator knows, to all as long as nothing is `allowed`, then to these, to addresses and to loopback names.
 */
export function hostCheck(listensOn: string, allowed: readonly string[]): (host: string | undefined) => boolean {
  const names = new Set(['localhost', ...allowed.map(nameOf)]);
  const local = isLoopback(listensOn);
  return (host) => {
    // HTTP/1.0, as some load balancers ask: no browser does
    if (host === undefined) return true;
    if (!local && allowed.length === 0) return true;
    const name = nameOf(host);
    return name !== undefined && (names.has(name) || (local ? isLoopback(name) : isIP(name) !== 0));
  };
}

function isLoopback(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && LOOPBACK.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

/** The host of a Host header without its port, as a browser writes it. */
function nameOf(host: string): string | undefined {
  if (!URL.canParse(`http://${host}`)) return undefined;
  return new URL(`http://${host}`).hostname.replace(/^\[|\]$|\.$/g, '');
}

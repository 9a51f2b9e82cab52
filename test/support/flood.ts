/**
 * node --import tsx test/support/flood.ts PORT CONNECTIONS TEXT REPEAT [read]
 *
 * Holds CONNECTIONS, each of which sends TEXT, REPEAT times, at once and reads nothing (`read`: all); one that the other side ends is made again. A process and an
 * address of its own, since who asks beside a flood is not the one who makes it. Prints how many are open, ten times a second.
 */
import { connect } from 'node:net';

const [port, connections, text = '', repeat, read] = process.argv.slice(2);
const sent = text.repeat(Number(repeat));
let open = 0;

function hold(): void {
  const socket = connect({ port: Number(port), host: '127.0.0.1', localAddress: '127.0.0.2' }, () => {
    open += 1;
    socket.write(sent);
    socket.once('close', () => (open -= 1));
  });
  socket.on('error', () => {});
  if (read !== undefined) socket.resume();
  socket.once('close', () => setImmediate(hold));
}

for (let i = 0; i < Number(connections); i += 1) hold();
setInterval(() => process.stdout.write(`${open}\n`), 100);

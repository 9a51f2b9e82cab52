/**
 * A gateway in a process of its own, with as little HTTP as it takes, so that the cores are left to those who ask. Each request for a status is
 * answered with Delivered, after LATENCY milliseconds; GET tells when the first one came (milliseconds since 1970) and how many came. Prints its port.
 * `node --import tsx poll-gateway.ts LATENCY`
 */
import { createServer, type AddressInfo, type Socket } from 'node:net';

const latency = Number(process.argv[2]);
let firstAt = 0;
let asked = 0;

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on('error', () => {});
  let pending = '';
  socket.on('data', (chunk) => {
    const text = pending + chunk.toString('latin1');
    const head = text.indexOf('\r\n\r\n');
    const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
    if (head < 0 || text.length < head + 4 + length) {
      pending = text;
      return;
    }
    pending = '';
    if (text.startsWith('GET')) {
      answer(socket, `[${firstAt},${asked}]`);
      return;
    }
    if (asked === 0) firstAt = Date.now();
    asked += 1;
    const id = /id="(\d+)"/.exec(text.slice(head))?.[1] ?? '';
    if (latency === 0) answer(socket, status(id));
    else setTimeout(() => answer(socket, status(id)), latency);
  });
});

function status(id: string): string {
  return `<status id='${id}' date='${new Date().toUTCString().replace('GMT', '+0000')}'><state>Delivered</state></status>`;
}

function answer(socket: Socket, body: string): void {
  const head = `HTTP/1.1 200 OK\r\ndate: ${new Date().toUTCString()}\r\ncontent-type: text/xml; charset=utf-8\r\n`;
  socket.write(`${head}content-length: ${body.length}\r\n\r\n${body}`);
}

server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});

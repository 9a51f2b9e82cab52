import type { Socket } from 'node:net';
import { Client } from 'pg';
import { pgConfig } from '../../src/postgres/clients.ts';
import { mirrorBacklog, type Backlog } from './backlog.ts';
import { singleRows } from './catch-up.ts';
import type { Bench, Figures } from './stage.ts';

export const bench: Bench = {
  name: 'decode',
  measures: "the same catch-up beside a receiver that reads the slot and throws all away: the server's decoding alone",
  comparisons: [
    {
      title: 'decode limit',
      figure: 'rate',
      unit: 'rows/s',
      against: 'receiver',
      reference: 'a receiver that discards',
      target: { ratio: 0.6, better: 'more' },
    },
  ],
  run: async (stage) => {
    const backlog = await singleRows(stage);
    await stage.alternate({
      smslogd: () => mirrorBacklog(stage, backlog),
      receiver: () => discard(backlog),
    });
  },
};

/** Reads the whole backlog as it comes from the socket and only counts the commits. */
async function discard(backlog: Backlog): Promise<Figures> {
  const slot = await backlog.slot();
  const client = new Client(await pgConfig(backlog.db.url, { name: 'bench receiver', replication: true }));
  await client.connect();
  client.on('error', () => {});
  const socket = (client as unknown as { connection: { stream: Socket } }).connection.stream;
  socket.removeAllListeners('data');
  let commits = 0;
  let first = 0;
  let last = 0;
  let rest: Buffer = Buffer.alloc(0);
  await new Promise<void>((resolve, reject) => {
    socket.once('close', () => reject(new Error('the server ended the stream')));
    socket.on('data', (chunk: Buffer) => {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      while (bytes.length - at >= 5) {
        const end = at + 1 + bytes.readInt32BE(at + 1);
        if (end > bytes.length) break;
        // CopyData with XLogData with a Commit
        if (bytes[at] === 0x64 && bytes[at + 5] === 0x77 && bytes[at + 30] === 0x43) {
          commits += 1;
          if (commits === 1) first = performance.now();
        }
        at = end;
      }
      rest = bytes.subarray(at);
      if (commits === backlog.rows) {
        last = performance.now();
        resolve();
      }
    });
    void client
      .query(`START_REPLICATION SLOT ${slot} LOGICAL 0/0 (proto_version '1', publication_names 'smslogd')`)
      .catch(() => {});
  });
  socket.destroy();
  await backlog.drop(slot);
  return { rate: backlog.rows / ((last - first) / 1000) };
}

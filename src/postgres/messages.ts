/** PostgreSQL's messages while a connection is made: those of the server are kept until they are asked for. */
import type { Socket } from 'node:net';
import { ServerRefusal } from '../errors.ts';

export interface Message {
  /** the letter that it begins with */
  readonly type: string;
  readonly body: Buffer;
  /** with letter and length */
  readonly whole: Buffer;
}

const LONGEST = 1_000_000;

/** A connection that failed, by a code that errors.ts knows. */
export function failure(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

/** Reads a socket until it is released. Every wait rejects where the socket fails or ends. */
export class Incoming {
  private readonly socket: Socket;
  private bytes: Buffer = Buffer.alloc(0);
  private problem: Error | undefined;
  private wake: (() => void) | undefined;
  private heard = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', this.took).on('error', this.failed).on('close', this.ended).resume();
  }

  /** The other side ended it without a message. */
  get refused(): boolean {
    return this.socket.readableEnded && !this.heard;
  }

  async take(count: number): Promise<Buffer> {
    while (this.bytes.length < count) {
      if (this.problem !== undefined) throw this.problem;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
    const taken = this.bytes.subarray(0, count);
    this.bytes = this.bytes.subarray(count);
    return taken;
  }

  /** The next message that is no notice. Throws ServerRefusal for an error of the server. */
  async message(): Promise<Message> {
    for (;;) {
      const message = await this.any();
      if (message.type === 'E') throw refusalOf(message.body);
      if (message.type !== 'N') return message;
    }
  }

  /** The next message, whatever it is. */
  async any(): Promise<Message> {
    const head = await this.take(5);
    const length = head.readUInt32BE(1);
    if (length < 4 || length > LONGEST) throw failure('PROTOCOL_VIOLATION', 'no message of PostgreSQL');
    const body = await this.take(length - 4);
    this.heard = true;
    return { type: String.fromCharCode(head[0] ?? 0), body, whole: Buffer.concat([head, body]) };
  }

  /** Stops reading and pauses the socket. Returns what nobody asked for. */
  release(): Buffer {
    this.socket.off('data', this.took).off('error', this.failed).off('close', this.ended).pause();
    return this.bytes;
  }

  private readonly took = (bytes: Buffer): void => {
    this.bytes = Buffer.concat([this.bytes, bytes]);
    this.wake?.();
  };

  private readonly failed = (error: Error): void => {
    this.problem ??= error;
    this.wake?.();
  };

  private readonly ended = (): void => this.failed(failure('CONNECTION_CLOSED', 'the server closed the connection'));
}

/** Whether the server said it itself. */
export function saidByServer(error: unknown): boolean {
  return error instanceof Error && 'severity_local' in error;
}

/** The fields of an error, by their letters. */
export function fieldsOf(body: Buffer): ReadonlyMap<string | undefined, string> {
  const fields = body.toString().split('\0');
  return new Map(fields.map((field) => [field[0], field.slice(1)]));
}

/** What the server refused or why it ended the session; its fields are named as those of postgres.js. */
export function errorOf(body: Buffer) {
  const fields = fieldsOf(body);
  return Object.assign(failure(fields.get('C') ?? 'XX000', fields.get('M') ?? ''), {
    severity: fields.get('V'),
    severity_local: fields.get('S'),
    routine: fields.get('R'),
    where: fields.get('W'),
    constraint_name: fields.get('n'),
    column_name: fields.get('c'),
  });
}

function refusalOf(body: Buffer): ServerRefusal {
  const fields = fieldsOf(body);
  return new ServerRefusal(fields.get('C') ?? 'XX000', fields.get('M') ?? '');
}

/** A message of ours. */
export function framed(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** A request that begins a connection, by its number: of TLS, of a session. */
export function opening(code: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + body.length, 0);
  head.writeInt32BE(code, 4);
  return Buffer.concat([head, body]);
}

export const SESSION = 3 << 16;
export const TLS_REQUEST = 80_877_103;
export const CANCEL_REQUEST = 80_877_102;

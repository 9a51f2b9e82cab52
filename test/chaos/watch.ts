/**
 * What must hold at any moment, looked at again and again while everything fails: counters never go back within a process, nothing personal is shown anywhere, a
 * process that nobody killed lives and says that it does, sessions on the server are bounded, a final status stays. Each breach is told once.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Daemon } from '../support/daemon.ts';
import { terminated } from './faults/daemons.ts';
import { personalIn } from './personal.ts';
import type { Member, Stage } from './stage.ts';

export interface Figures {
  scrapes: number;
  mostSessions: number;
  /** bytes */
  mostMemory: number;
  mostSockets: number;
  lines: number;
  codes: Map<string, number>;
}

export interface Watch {
  readonly figures: Figures;
  stop(): Promise<void>;
}

/** The contract: 10 or fewer for each daemon, of which one of the replication role always counts, and a second one where there is one. */
export const SESSIONS = 10;
const EVERY_MS = 1_000;
/** A stop takes 10 s at most; the machine is busy. */
const STOP_MS = 12_000;
/** What a process needs after it was frozen, before it must say that it lives. */
const THAW_MS = 90_000;
const MOST_MEMORY = 400 * 1024 * 1024;
/** Connections to the gateway (64 at once), to the server, and ours to the daemon. */
const MOST_SOCKETS = 120;
const COUNTER = /^([a-z_]+(?:_total|_bucket|_count|_sum)(?:\{[^}]*\})?) ([0-9.eE+-]+)$/gm;

export function startWatch(stage: Stage, breach: (what: string) => void): Watch {
  const figures: Figures = { scrapes: 0, mostSessions: 0, mostMemory: 0, mostSockets: 0, lines: 0, codes: new Map() };
  const stop = new AbortController();
  const read = new WeakMap<Daemon, number>();
  const counters = new WeakMap<Daemon, Map<string, number>>();
  const wanted = new WeakSet<Daemon>();
  const told = new WeakSet<Daemon>();
  const ill = new Map<Member, number>();
  let serverLines = 0;
  let toldStops = terminated.length;

  const lines = (member: Member) => {
    for (const daemon of member.processes) {
      const from = read.get(daemon) ?? 0;
      read.set(daemon, daemon.lines.length);
      for (const line of daemon.lines.slice(from)) {
        figures.lines += 1;
        const shown = personalIn(line.replace(/"time":\d+/, ''), stage);
        if (shown !== undefined) breach(`${member.name} shows ${shown} in its log`);
        const code = /"code":"([a-z_]+)"/.exec(line)?.[1];
        if (code !== undefined) figures.codes.set(code, (figures.codes.get(code) ?? 0) + 1);
        if (code === 'unexpected' || code === 'protocol' || line.includes('"level":"fatal"'))
          breach(`${member.name} says ${line.slice(0, 400)}`);
        // the log becomes complete by itself then, so that nothing else would tell
        if (code === 'rows_missing' && !stage.mayLack) breach(`${member.name} had lost rows: ${line.slice(0, 400)}`);
      }
      if (daemon.stderr() !== '' && !told.has(daemon)) {
        told.add(daemon);
        breach(`${member.name} wrote to stderr: ${daemon.stderr().slice(0, 600)}`);
      }
      const { child } = daemon;
      const over = child.exitCode !== null || child.signalCode !== null;
      if (over && !wanted.has(daemon)) {
        wanted.add(daemon);
        // it was killed, or stopped with 0, or before it had begun
        if (child.signalCode !== 'SIGKILL' && child.exitCode !== 0 && daemon.lines.length > 0)
          breach(`${member.name} ended by itself: ${child.exitCode ?? child.signalCode}; ${daemon.lines.at(-1)}`);
      }
    }
    for (const { name, code, ms } of terminated.slice(toldStops)) {
      if (code !== 0) breach(`${name} ended with ${code} after SIGTERM`);
      if (ms > STOP_MS) breach(`${name} took ${Math.round(ms)} ms to stop`);
    }
    toldStops = terminated.length;
  };

  const scrape = async (member: Member) => {
    const { daemon, url, frozen } = member;
    if (daemon === undefined || url === undefined || frozen) return;
    const get = async (path: string) => {
      const response = await fetch(url + path, { signal: AbortSignal.timeout(5_000) });
      return { status: response.status, text: await response.text() };
    };
    let texts: string[];
    let health: number;
    try {
      const answers = await Promise.all(['/metrics', '/healthz', '/readyz', '/', '/status.json'].map(get));
      health = answers[1]!.status;
      texts = answers.map(({ text }) => text);
    } catch {
      // it ended, or froze, in this moment
      return;
    }
    figures.scrapes += 1;
    const shown = texts.map((text) => personalIn(text, stage)).find((each) => each !== undefined);
    if (shown !== undefined) breach(`${member.name} shows ${shown} over HTTP`);
    const before = counters.get(daemon) ?? new Map<string, number>();
    for (const [, name = '', value] of texts[0]!.matchAll(COUNTER)) {
      if ((before.get(name) ?? 0) > Number(value))
        breach(`${member.name}: ${name} went back from ${before.get(name)} to ${value}`);
      before.set(name, Number(value));
    }
    counters.set(daemon, before);
    const well = health === 200 || performance.now() - member.thawedAt < THAW_MS;
    ill.set(member, well ? 0 : (ill.get(member) ?? 0) + 1);
    if (ill.get(member) === 3) breach(`${member.name} is not alive by its own word (/healthz ${health})`);
    const { memory, sockets } = processFigures(daemon);
    figures.mostMemory = Math.max(figures.mostMemory, memory);
    figures.mostSockets = Math.max(figures.mostSockets, sockets);
    if (memory > MOST_MEMORY) breach(`${member.name} has ${Math.round(memory / 1024 / 1024)} MiB of memory`);
    if (sockets > MOST_SOCKETS) breach(`${member.name} has ${sockets} sockets`);
  };

  const server = async () => {
    const { sql } = stage;
    const rows = await sql<{ n: number }[]>`
      select (count(*) filter (where slot = '') + greatest(1, count(*) filter (where slot <> '')))::int as n
        from (select split_part(application_name, ' ', 3) as daemon, split_part(application_name, ' ', 4) as slot
                from pg_stat_activity where application_name like 'smslogd %') a group by daemon`.catch(() => []);
    for (const { n } of rows) figures.mostSessions = Math.max(figures.mostSessions, n);
    // how many there are through a pooler is its affair
    const pooled = stage.members.some(({ settings }) => 'DATABASE_URL' in settings);
    for (const { n } of rows) if (n > SESSIONS && !pooled) breach(`a daemon has ${n} sessions on the server`);
    await finalStays(stage, breach).catch(() => {});
    for (const line of stage.serverLines.slice(serverLines)) {
      if (!line.startsWith(DAEMONS)) continue;
      const shown = personalIn(line, stage);
      if (shown !== undefined) breach(`the server's log shows ${shown} of a daemon's statement`);
    }
    serverLines = stage.serverLines.length;
  };

  const loop = async () => {
    while (!stop.signal.aborted) {
      stage.members.forEach(lines);
      await Promise.all([server(), ...stage.members.map(scrape)]);
      await delay(EVERY_MS);
    }
    stage.members.forEach(lines);
  };
  const running = loop();
  return {
    figures,
    async stop() {
      stop.abort();
      await running;
    },
  };
}

const DAEMONS = 'smslogd';

/** Sessions and memory of one process. */
function processFigures(daemon: Daemon): { memory: number; sockets: number } {
  try {
    return { memory: daemon.peakMemory(), sockets: socketsOf(daemon.child.pid!) };
  } catch {
    return { memory: 0, sockets: 0 };
  }
}

function socketsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

/** What was seen to be final is kept in the book, and compared at each look. Never waits for a lock. */
export async function finalStays(stage: Stage, breach: (what: string) => void): Promise<void> {
  const results = (await stage.sql
    .unsafe(
      `set local lock_timeout = '300ms';
       select f.id::text as id, f.status as was, l.gateway_status as is from chaos.final f left join verification.sms_log l using (id)
        where (l.gateway_status, l.status_changed_at) is distinct from (f.status, f.changed_at);
       insert into chaos.final select id, gateway_status, status_changed_at from verification.sms_log
        where gateway_status not in ('Accepted', 'Enroute', 'Pending', 'Unknown') on conflict (id) do nothing`,
    )
    .simple()) as unknown as { id: string; was: string; is: string | null }[][];
  for (const { id, was, is } of results[1] ?? []) breach(`the final status ${was} of ${id} became ${is}`);
}

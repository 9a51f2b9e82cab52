/** The status page: is the SMS channel well? One HTML document without anything from elsewhere. */
import { openTable, typeCards } from './channel.ts';
import { runbookLink } from './documents.ts';
import type { StatusFacts } from './facts.ts';
import { documentHead, policyOf } from './head.ts';
import { LIVE_SECONDS, SCRIPT } from './live.ts';
import { gatewayCard, meaningsList, pipelineCard } from './machinery.ts';
import { STYLE } from './style.ts';
import type { Level } from './verdict.ts';
import { clock, count, escape } from './wording.ts';

export const PAGE_POLICY = policyOf(STYLE, SCRIPT);

/** Fewer SMS of the past that are still to be asked for change no figure that anybody looks at. */
const MANY = 20;

/** Before the verdict, for who sees no colours. */
export const SIGNS: Readonly<Record<Level, string>> = { well: '✓', impaired: '!', failing: '✕', unknown: '?' };

/** where scripts are off, once in a while the whole page */
const RELOAD = '<noscript><meta http-equiv="refresh" content="30"></noscript>\n';

export function statusPage(facts: StatusFacts): string {
  const { verdict } = facts;
  return `${documentHead(`${SIGNS[verdict.level]} ${verdict.sentence}`, STYLE, RELOAD)}
<a class="skip" href="#main">To the figures</a>
<div class="page">
<header>
<div class="top"><h1>smslogd: the SMS channel</h1><p id="read" data-live>${readLine(facts)}</p></div>
<p class="stale" id="stale" role="alert" hidden>This page is not up to date: the daemon does not answer. It tries again every ${LIVE_SECONDS} s.</p>
<section class="card verdict ${verdict.level}" id="verdict" data-live aria-label="Verdict">${verdictPart(facts)}</section>
</header>
<main id="main" tabindex="-1">
<div class="notes" id="notes" data-live>${notesOf(facts)
    .map((each) => `<p>${escape(each)}</p>`)
    .join('')}</div>
${facts.read_at === null ? '<div id="channel" data-live class="two"></div>' : `<div id="channel" data-live class="two">${typeCards(facts)}</div>`}
<div id="machinery" data-live class="three"><section class="card" aria-label="Open SMS">${openTable(facts)}</section>
${pipelineCard(facts)}
${gatewayCard(facts)}</div>
${meaningsList()}
</main>
<footer><p>smslogd ${escape(facts.version)} <a href="metrics">metrics</a> <a href="status.json">status.json</a> <a href="docs/runbook.md">runbook</a></p></footer>
</div>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function verdictPart({ verdict }: StatusFacts): string {
  const findings = verdict.findings.map(
    ({ level, sentence, runbook }) =>
      `<li class="${level}">${escape(sentence)} <a class="soft" href="${runbookLink(runbook)}">runbook: ${runbook}</a></li>`,
  );
  return `<p class="says" role="status"><span aria-hidden="true">${SIGNS[verdict.level]}</span> ${escape(verdict.sentence)}</p>${
    verdict.because === null ? '' : `<p class="because">${escape(verdict.because)}</p>`
  }${findings.length === 0 ? '' : `<ul>${findings.join('')}</ul>`}`;
}

function readLine({ read_at: readAt, timezone }: StatusFacts): string {
  if (readAt === null) return 'No figures yet';
  const time = clock(timezone)(Date.parse(readAt) / 1000);
  return `Figures as of <time datetime="${readAt}">${time}</time>, days and hours in ${escape(timezone ?? '')}`;
}

/** What a reader of the figures must know, whether or not anything is wrong; plain text. */
export function notesOf(facts: StatusFacts): string[] {
  const {
    latency_source: source,
    source_tracked: tracked,
    mirror,
    history_due: history,
    history_minutes: minutes,
  } = facts;
  const found: string[] = [];
  if (mirror === 'snapshot' || (history ?? 0) >= MANY) {
    const settle =
      minutes === null
        ? 'settle as the gateway answers'
        : `settle within ${minutes} ${minutes === 1 ? 'minute' : 'minutes'}`;
    const left = mirror === 'snapshot' ? '' : ` (${count(history ?? 0)} SMS are still to be asked for)`;
    found.push(`Copying history: figures of past days ${settle}${left}.`);
  }
  if (source === 'unconfirmed') {
    found.push(
      "Latency source unconfirmed: the gateway's dates may be the time of the change or of the reply (LATENCY_SOURCE, see the runbook).",
    );
  }
  if (source === 'reply') {
    found.push(
      "The gateway's dates are those of its replies: latencies are too long by up to the gap between two requests.",
    );
  }
  if (tracked === false) {
    found.push(
      'The source table has no gateway ids: its SMS are logged, but their delivery cannot be followed: they count as untracked.',
    );
  }
  if (mirror === 'standby') found.push('This daemon is a standby for the mirror: another one leads. Both poll.');
  return found;
}

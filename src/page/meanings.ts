/** What each figure of the page means: its title where it stands, and the list at the end for who has no mouse. */
export const MEANINGS = {
  'On time':
    'Delivered within 2 minutes, of all SMS that are at least 2 minutes old, whatever their status: the first figure to look at',
  Success:
    'Delivered, of all SMS whose status is not Accepted or Enroute. Blind to SMS that are stuck: read it beside On time',
  'Final status': 'SMS with a final status, of all',
  SMS: 'All SMS of the period',
  Delivered: 'SMS whose status is Delivered',
  '≤ 2 min': 'Delivered within 2 minutes of being sent',
  '2 – 5 min': 'Delivered in more than 2, at most 5 minutes',
  '5 – 30 min': 'Delivered in more than 5, at most 30 minutes',
  '> 30 min': 'Delivered in more than 30 minutes',
  Undelivered: 'SMS whose status is not Accepted or Enroute, and that are not Delivered',
  Open: 'SMS without a final status: Accepted, Enroute, Pending or Unknown',
  'Oldest open': 'Age of the oldest SMS that is open',
  Untracked: 'SMS whose source had no gateway ids: their delivery cannot be followed',
  Median: 'Half of the delivered SMS took at most this long',
  '95th percentile': '95 of 100 delivered SMS took at most this long',
  'State of the mirror':
    'What this daemon does with new rows of the source: one daemon streams, the others are standbys',
  Ready: 'Whether /readyz answers 200: this daemon streams or is a standby, and the database answers',
  Leader: 'The daemon that mirrors, by its lease in the database: its host and process',
  'Behind the source':
    'Time since the commit of the oldest row that is not yet in the log, and WAL that is not yet read',
  'Rows found missing': 'Rows of the source that the last audit found missing in the log, and filled in',
  'Replication slot': 'Whether a daemon reads the slot now, and what PostgreSQL says of its WAL',
  'WAL retained': 'WAL that PostgreSQL keeps on disk for the slot',
  'WAL until it is lost':
    'How much more WAL can be written before PostgreSQL invalidates the slot (max_slot_wal_keep_size)',
  'Last checkpoint': 'When the position in the source was last stored, in one commit with the rows',
  'State of the poller': 'Whether this daemon sends status requests, or pauses after failures of the gateway',
  'Last answer': 'Time since this daemon last got a valid answer from the gateway',
  'SMS due now': 'Open SMS whose next status request is due',
  'Requests at once': 'Status requests in flight, and their limit, which falls while the gateway is slow',
  'Requests, last 20 min':
    'How the status requests of this daemon ended: ok: a new status; unchanged: the same; the others failed',
} as const;

export type Term = keyof typeof MEANINGS;

/** The thresholds of "is the channel well?". The alerts in ops/alerts.yml use the same where their names are given; a test compares both. */

/** The share of SMS delivered within 2 minutes: below the first the channel is impaired, below the second it fails (SmslogdOnTimeFastBurn, SmslogdOnTimeSlowBurn). */
export const ON_TIME = { impaired: 0.8, failing: 0.5 };

/** With fewer SMS a share is not significant. */
export const ENOUGH = 20;

/** The offset of the gateway's clock that falsifies times of delivery (SmslogdGatewayClock), and the share of impossible dates that does. */
export const CLOCK_SECONDS = 30;
export const CLOCK_SHARE = 0.25;

/** The age of the figures on the page from which they are stale; the alert SmslogdFiguresStale waits longer. */
export const STALE_SECONDS = 60;

/** Mirror lag (SmslogdMirrorLag). */
export const LAG_SECONDS = 60;

/** Time without an answer of the gateway although SMS are due (SmslogdPollStale). */
export const SILENCE_SECONDS = 600;

/** The age of an open SMS past its deadline (SmslogdBacklogOld). */
export const OPEN_SECONDS = 3_600;

/** Time with an open circuit breaker after which the channel status is unknown. */
export const BREAK_SECONDS = 60;

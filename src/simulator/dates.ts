/** Dates as the gateway writes them: RFC 1123 with Kyiv's numeric zone, in whole seconds. */
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const HOUR = 3_600_000;

/** `Wed, 28 Mar 2007 12:35:00 +0300` for epoch milliseconds; fractions of a second are truncated. */
export function gatewayDate(at: number): string {
  const summer = isSummer(at);
  const local = new Date(at + (summer ? 3 : 2) * HOUR);
  const day = `${DAYS[local.getUTCDay()]}, ${two(local.getUTCDate())} ${MONTHS[local.getUTCMonth()]} ${local.getUTCFullYear()}`;
  const time = `${two(local.getUTCHours())}:${two(local.getUTCMinutes())}:${two(local.getUTCSeconds())}`;
  return `${day} ${time} ${summer ? '+0300' : '+0200'}`;
}

/** Kyiv's summer time: from the last Sunday of March to the last Sunday of October, each at 01:00 UTC. Intl would be too slow for each reply. */
function isSummer(at: number): boolean {
  const year = new Date(at).getUTCFullYear();
  return at >= lastSunday(year, 2) && at < lastSunday(year, 9);
}

function lastSunday(year: number, month: number): number {
  const last = new Date(Date.UTC(year, month, 31, 1));
  return last.getTime() - last.getUTCDay() * 24 * HOUR;
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

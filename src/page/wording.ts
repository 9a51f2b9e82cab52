/** How the page writes numbers, ages and times, and text from elsewhere. */
const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

export function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character] ?? character);
}

export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** A share with one decimal. Neither all nor nothing is said where it is not so. */
export function percent(ratio: number | null): string {
  if (ratio === null) return '–';
  const shown = (ratio * 100).toFixed(1);
  if (ratio < 1 && shown === '100.0') return '99.9 %';
  if (ratio > 0 && shown === '0.0') return '0.1 %';
  return `${shown} %`;
}

/** Seconds in the unit that says something; minutes too up to ten hours. */
export function age(seconds: number | null): string {
  if (seconds === null) return '–';
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min`;
  if (whole < 36_000) return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
  if (whole < 172_800) return `${Math.floor(whole / 3_600)} h`;
  return `${Math.floor(whole / 86_400)} d`;
}

/** A latency: tenths below ten seconds, as they matter there. */
export function latency(seconds: number | null): string {
  if (seconds === null) return '–';
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min`;
}

export function bytes(value: number | null): string {
  if (value === null) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, value < 1 ? 0 : Math.floor(Math.log10(value) / 3));
  return `${(value / 1000 ** power).toFixed(power === 0 || value / 1000 ** power >= 100 ? 0 : 1)} ${units[power]}`;
}

/** Hours and minutes of Unix seconds on the clocks of `timezone`; UTC where this runtime does not know it. */
export function clock(timezone: string | null): (at: number) => string {
  const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: timezone ?? 'UTC' });
  } catch {
    format = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: 'UTC' });
  }
  return (at) => format.format(at * 1000);
}

import { expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { nearestZone } from '../../src/timezones.ts';

const ZONES = [
  'America/Los_Angeles',
  'America/New_York',
  'Asia/Kolkata',
  'Australia/Sydney',
  'Etc/GMT+3',
  'Etc/GMT-3',
  'Europe/Brussels',
  'Europe/Kiev',
  'Europe/Kyiv',
  'Europe/London',
  'Europe/Paris',
  'Pacific/Honolulu',
  'UTC',
];

test.for([
  // abbreviations, as the runtime knows them or their clocks
  ['EET', 'Europe/Kyiv'],
  ['EEST', 'Europe/Kyiv'],
  ['CET', 'Europe/Brussels'],
  ['IST', 'Asia/Kolkata'],
  ['HST', 'Pacific/Honolulu'],
  ['PST', 'America/Los_Angeles'],
  ['EDT', 'America/New_York'],
  ['AEST', 'Australia/Sydney'],
  ['BST', 'Europe/London'],
  ['GMT', 'UTC'],
  // written otherwise
  ['europe/kyiv', 'Europe/Kyiv'],
  ['utc', 'UTC'],
  ['posix/Europe/Kyiv', 'Europe/Kyiv'],
  ['right/Europe/Paris', 'Europe/Paris'],
  ['Kyiv', 'Europe/Kyiv'],
  ['new york', 'America/New_York'],
  ['Europe/Kyev', 'Europe/Kyiv'],
  // offsets: the sign of Etc is that of POSIX
  ['+03:00', 'Etc/GMT-3'],
  ['UTC+3', 'Etc/GMT-3'],
  ['GMT-03', 'Etc/GMT+3'],
  ['<+03>-3', 'Etc/GMT-3'],
  ['<-03>3', 'Etc/GMT+3'],
])('the nearest zone to %s is %s', ([name, zone]) => {
  expect(nearestZone(name!, ZONES)).toBe(zone);
});

const refused = (name: string, value: string) => () => loadConfig({ [name]: value });

test('a wrong time zone is refused with the nearest one, and without the value', () => {
  expect(refused('SOURCE_TIMEZONE', 'Europe/Kyev')).toThrow(
    /^wrong settings:\n {2}SOURCE_TIMEZONE: must be an IANA time zone; the nearest is Europe\/Kyiv$/,
  );
  expect(refused('REPORT_TIMEZONE', 'EEST')).toThrow('the nearest is Europe/Kyiv');
  expect(refused('REPORT_TIMEZONE', '+02:00')).toThrow('the nearest is Etc/GMT-2');
});

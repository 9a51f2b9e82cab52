/** Made-up facts of a channel, as the database would tell them, for tests of what is shown. */
import type { Facts, Hour, Period } from '../../src/figures/readings.ts';
import { SMS_TYPES, type SmsType } from '../../src/status.ts';

const HOUR = 3_600;

/** A day of SMS by the hour, `weight` of them an hour at most. */
export function hoursBefore(at: number, type: SmsType, weight: number): Hour[] {
  return Array.from({ length: 24 }, (_, i) => {
    const total = Math.round(weight * (0.55 + 0.45 * Math.sin((i - 9) / 3.8)));
    const onTime = Math.round(total * 0.89);
    const late = Math.round(total * 0.05);
    return {
      hour: (Math.floor(at / HOUR) - 23 + i) * HOUR,
      type,
      total,
      delivered: onTime + late,
      open: i === 23 ? Math.round(total * 0.03) : 0,
      untracked: 0,
      due: total,
      on_time: onTime,
      success_ratio: 0.95,
      on_time_ratio: total === 0 ? null : onTime / total,
      le_2m: onTime,
      m2_5: late,
      m5_30: 0,
      gt_30m: 0,
      p50: 4 + (i % 3),
      p95: 90 + 20 * (i % 5),
    };
  });
}

export function periodOf(type: SmsType, period: Period['period'], total: number): Period {
  const part = (share: number) => Math.round(total * share);
  const ratio = (value: number) => (total === 0 ? null : value);
  return {
    type,
    period,
    total,
    processed: part(0.97),
    delivered: part(0.94),
    undelivered: part(0.03),
    success_ratio: ratio(0.969),
    le_2m: part(0.89),
    m2_5: part(0.02),
    m5_30: part(0.025),
    gt_30m: part(0.005),
    open: part(0.03),
    oldest_open_age: total === 0 ? null : 1_260,
    known_ratio: ratio(0.97),
    on_time_ratio: ratio(0.893),
    untracked: 0,
    settled: false,
    accepted: part(0.03),
    enroute: 0,
    pending: 0,
    unknown: 0,
    expired: part(0.01),
    deleted: 0,
    undeliverable: part(0.01),
    rejected: part(0.01),
    unaccepted: 0,
    terminated: 0,
  };
}

/** A channel that is well, with `weight` verifications an hour at most and a third as many of medication_request; 0: an empty database; `others` have a quarter as many. */
export function channelFacts(
  at: number,
  weight: number,
  others: readonly SmsType[] = [],
): { facts: Facts; hours: readonly Hour[] } {
  const share = (type: SmsType) =>
    type === 'verification' ? 1 : type === 'medication_request' ? 1 / 3 : others.includes(type) ? 1 / 4 : 0;
  const types = SMS_TYPES.filter((type) => weight * share(type) > 0);
  return {
    hours: types.flatMap((type) => hoursBefore(at, type, weight * share(type))),
    facts: {
      at,
      timezone: 'Europe/Kyiv',
      tracks: true,
      periods: (['today', 'yesterday_same_time', 'yesterday'] as const).flatMap((period, i) =>
        SMS_TYPES.map((type) => periodOf(type, period, Math.round(weight * share(type) * (9 + i)))),
      ),
      recent: types.flatMap((type) => [
        { type, outcome: 'on_time' as const, sms: Math.round(weight * share(type) * 0.15) },
        { type, outcome: 'late' as const, sms: Math.round(weight * share(type) * 0.01) },
      ]),
      open: types.flatMap((type) => [
        { type, status: 'Accepted' as const, sms: 7, oldest_age: 45 },
        { type, status: 'Enroute' as const, sms: 12, oldest_age: 1_260 },
      ]),
      delivered: Object.fromEntries(types.map((type) => [type, at - 4])),
      behind: 0,
      refused: 0,
      tables: { sms_log: 9e9, sms_poll: 2e6, checkpoint: 1e5, changed_hour: 1e5, sms_hourly: 9e6, sms_refused: 8192 },
      due: weight === 0 ? 0 : 3,
      entered: {},
      overdue: [],
      checkpoint: at - 2,
      slot: { active: true, wal_status: 'reserved', retained: 1_300_000, safe: 20_000_000_000, behind: 0 },
      history_due: 0,
      reconcile: null,
      removed: false,
      leader: { holder: 'db-host 4711 a1b2', term: 3, mirrors: true, streaming: true, renewed_age: 0.4, leads: true },
    },
  };
}

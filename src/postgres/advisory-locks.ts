/** The numbers of smslogd's advisory locks in its database: any fixed ones that differ. */

/** two migrations */
export const MIGRATION_LOCK = 7_246_581_903;
/** two sessions that count, or freeze what is counted */
export const COUNTING_LOCK = 7_246_581_904;

/**
 * The latest time of a take-over, milliseconds since 1970: the year 2109. Bundoc derives positions of 48 bits
 * from such times. It has its own module, because the thread of BunKMS's SQLite needs it and no schema.
 */
export const TAKEN_OVER_MS_MAX = 2 ** 42 - 2 ** 32;

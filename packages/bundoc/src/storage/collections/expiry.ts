import type { Ttl } from '@bundoc/shared/contract/collections';
import { pathOf, valueAt } from '../../query/path.ts';
import { readValue, type Value } from '../../query/value.ts';

/** RFC 3339 in UTC, down to milliseconds. */
const UTC_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/;

/** When a document expires, milliseconds since 1970; undefined when it never does. */
export function expiresAtMs(ttl: Ttl, document: Value): number | undefined {
  const time = valueAt(document, pathOf(ttl.field));
  if (typeof time !== 'string' || !UTC_TIME.test(time)) return undefined;
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? undefined : ms + ttl.seconds * 1_000;
}

/** @param text of a stored document. */
export function isExpired(ttl: Ttl, text: Buffer, nowMs: number): boolean {
  const atMs = expiresAtMs(ttl, readValue(text.toString()));
  return atMs !== undefined && atMs <= nowMs;
}

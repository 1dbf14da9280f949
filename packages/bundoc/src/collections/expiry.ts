import type { Ttl } from '@bundoc/shared/contract/collections';
import { scanJson, valueStartOf } from '@bundoc/shared/json/scan';
import { type Path, pathOf, valueAt } from '../values/path.ts';
import { readValue, type Value } from '../values/value.ts';

/** RFC 3339 in UTC, down to milliseconds. */
const UTC_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/;

/** The expiry time of a document, milliseconds since 1970; undefined when it never expires. */
export function expiresAtMs(ttl: Ttl, document: Value): number | undefined {
  return endOf(ttl, valueAt(document, pathOf(ttl.field)));
}

function endOf(ttl: Ttl, time: Value | undefined): number | undefined {
  if (typeof time !== 'string' || !UTC_TIME.test(time)) return undefined;
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? undefined : ms + ttl.seconds * 1_000;
}

/** @param text the text of a stored document. */
export function isExpired(ttl: Ttl, text: Buffer, nowMs: number): boolean {
  const atMs = endOf(ttl, valueIn(text, pathOf(ttl.field)));
  return atMs !== undefined && atMs <= nowMs;
}

/** Whether a document has the field, but no time in it, so that it never expires. */
export function hasInvalidTime(ttl: Ttl, text: Buffer): boolean {
  const time = valueIn(text, pathOf(ttl.field));
  return time !== undefined && time !== null && endOf(ttl, time) === undefined;
}

/**
 * {@link valueAt} on a text. It parses only the members on the path, at a fraction of the cost of parsing the
 * whole document.
 */
function valueIn(text: Buffer, path: Path): Value | undefined {
  const [name, ...rest] = path;
  const { bodyStart, members } = name === undefined ? { bodyStart: undefined, members: [] } : scanJson(text);
  if (bodyStart === undefined) return valueAt(readValue(text.toString()), path);
  const member = members.find((one) => one.name === name);
  return member && valueIn(text.subarray(valueStartOf(text, member), member.end), rest);
}

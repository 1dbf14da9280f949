import { describe, expect, it } from 'vitest';
import { readValue } from '../values/value.ts';
import { expiresAtMs, hasInvalidTime, isExpired } from './expiry.ts';

const LATER = Date.parse('2100-01-01T00:00:00Z');
const document = (until: unknown) => JSON.stringify({ until });
const endOf = (until: unknown, seconds = 0) =>
  expiresAtMs({ field: 'until', seconds }, readValue(document(until)));

describe('a document with a time to live', () => {
  it.each([
    ['2026-01-01T00:00:00Z', 0, '2026-01-01T00:00:00.000Z'],
    ['2026-01-01T00:00:00.5Z', 0, '2026-01-01T00:00:00.500Z'],
    ['2026-01-01T00:00:00.123Z', 60, '2026-01-01T00:01:00.123Z'],
  ])('expires by its field %s plus %i seconds at %s', (until, seconds, end) => {
    expect(endOf(until, seconds)).toBe(Date.parse(end));
    const ttl = { field: 'until', seconds };
    const text = Buffer.from(document(until));
    expect(isExpired(ttl, text, Date.parse(end) - 1)).toBe(false);
    expect(isExpired(ttl, text, Date.parse(end))).toBe(true);
  });

  it.each([
    '2026-01-01',
    '2026-01-01T00:00Z',
    '2026-01-01T00:00:00',
    '2026-01-01T00:00:00+00:00',
    '2026-01-01T01:00:00+01:00',
    '2026-01-01T00:00:00.1234Z',
    ' 2026-01-01T00:00:00Z',
    '2026-01-01T00:00:00Z ',
    '+002026-01-01T00:00:00Z',
    'Thu, 01 Jan 2026 00:00:00 GMT',
    '2026-13-01T00:00:00Z',
    '2026-01-01T25:00:00Z',
    1_767_225_600_000,
    null,
  ])('never expires when its field is %j, which is not a UTC time', (until) => {
    expect(endOf(until)).toBeUndefined();
    const [ttl, text] = [{ field: 'until', seconds: 0 }, Buffer.from(document(until))];
    expect(isExpired(ttl, text, LATER)).toBe(false);
    // Null says on purpose that there is no end.
    expect(hasInvalidTime(ttl, text)).toBe(until !== null);
  });

  it('has no mistake in its field when that is absent or a time', () => {
    for (const text of [document('2026-01-01T00:00:00Z'), '{}', '{"until":{"a":1}}'])
      expect(hasInvalidTime({ field: 'until', seconds: 0 }, Buffer.from(text))).toBe(text.includes('"a"'));
  });
});

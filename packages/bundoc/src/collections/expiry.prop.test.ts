import fc from 'fast-check';
import { expect, it } from 'vitest';
import { readValue } from '../values/value.ts';
import { expiresAtMs, isExpired } from './expiry.ts';

const TIME = '2026-01-01T00:00:00Z';
const NOW = Date.parse(TIME);

it('a document expires equally by its text and by its value, wherever the field is', () => {
  const name = fc.constantFrom('a', 'b', '0', '1', 'é"');
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, depthSize: 'medium' },
      fc.constantFrom<unknown>(TIME, '2027-01-01T00:00:00Z', 'no time', 1, null),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(name, tie('value'), { maxKeys: 3, noNullPrototype: true }),
    ),
  }));
  const document = fc.dictionary(name, value, { noNullPrototype: true });
  const names = fc.array(name, { minLength: 1, maxLength: 4 });
  const moment = fc.constantFrom<unknown>(TIME, [TIME, 1], '2027-01-01T00:00:00Z', null);
  /** A document of any shape, or one that certainly has something at the path. */
  const documentAndField = fc.tuple(document, names, fc.option(moment)).map(([others, path, held]) => ({
    field: path.join('.'),
    document: held === null ? others : placed(path, held, others),
  }));
  let expired = 0;
  fc.assert(
    fc.property(documentAndField, fc.boolean(), ({ document, field }, spaced) => {
      const text = JSON.stringify(document, undefined, spaced ? 1 : 0);
      const ttl = { field, seconds: 0 };
      const atMs = expiresAtMs(ttl, readValue(text));
      const expected = atMs !== undefined && atMs <= NOW;
      expired += Number(expected);
      expect(isExpired(ttl, Buffer.from(text), NOW)).toBe(expected);
    }),
    { numRuns: 2_000 },
  );
  expect(expired).toBeGreaterThan(20);
});

function placed(path: string[], held: unknown, others: Record<string, unknown>): Record<string, unknown> {
  const [first = '', ...rest] = path;
  return { ...others, [first]: rest.length === 0 ? held : placed(rest, held, {}) };
}

import { describe, expect, it } from 'vitest';
import { SlowSteps } from '../testing/slow-steps.ts';
import { readValue } from '../values/value.ts';
import { compileSchema } from './json-schema.ts';
import { checkInTurnsOf, STEPS_MAX } from './schema-checks.ts';

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);
const all = (count: number, one: object) => ({ allOf: Array(count).fill(one) });
const alternatives = { items: { $ref: '#' }, minItems: 1 };
const array = (count: number, element: string) => `"n":[${Array(count).fill(element).join()}]`;

/** Schemas of at most 64 KiB, and members of a document for which a check would take very long. */
const HOSTILE: Readonly<Record<string, readonly [schema: Record<string, unknown>, members: string]>> = {
  'references in a circle': [{ properties: { n: { $ref: '#/properties/n' } } }, '"n":1'],
  'alternatives that double at each depth': [
    { properties: { n: { $ref: '#' } }, anyOf: [{ type: 'object' }, alternatives, alternatives] },
    `"n":${'['.repeat(90)}${']'.repeat(90)}`,
  ],
  'unique elements': [{ properties: { n: all(400, { uniqueItems: true }) } }, array(20_000, '{}')],
  elements: [{ properties: { n: all(1_000, { items: { type: 'number' } }) } }, array(100_000, '1')],
  'elements that are sought': [
    { properties: { n: all(1_000, { contains: { type: 'null' } }) } },
    array(100_000, '1'),
  ],
  constants: [
    { properties: { n: { items: all(1_000, { not: { enum: [{}] } }) } } },
    array(20_000, '{"a":[1]}'),
  ],
  'names of members': [
    {
      properties: { n: { items: { properties: Object.fromEntries(numbers(2_400).map((n) => [n, true])) } } },
    },
    array(100_000, '{}'),
  ],
  'numbers of members': [
    { properties: { n: all(1_000, { minProperties: 1 }) } },
    `"n":{${numbers(50_000).map((n) => `"${n}":0`)}}`,
  ],
  'evaluated members': [
    {
      properties: {
        n: numbers(45).reduce((inner: object) => ({ allOf: [inner], unevaluatedProperties: true }), {
          additionalProperties: true,
        }),
      },
    },
    `"n":{${numbers(50_000).map((n) => `"${n}":0`)}}`,
  ],
  'long texts': [{ properties: { n: all(1_000, { maxLength: 2e6 }) } }, `"n":"${'x'.repeat(1_000_000)}"`],
  'long names': [
    { properties: { n: all(1_000, { not: { enum: [{}] } }) } },
    `"n":{"\\ud800${'x'.repeat(60_000)}":1}`,
  ],
  // V8 gives long texts of one length the same hash.
  'unique texts of one length': [
    { properties: { n: all(100, { uniqueItems: true }) } },
    array(
      1,
      numbers(300)
        .map((n) => `"${'x'.repeat(20_000)}${n + 100}"`)
        .join(),
    ),
  ],
  'long numbers': [{ properties: { n: all(1_000, { multipleOf: 0.01 }) } }, `"n":${'1'.repeat(10_000)}`],
};

const content = (text: string) => ({ bytes: Buffer.from(text), hasMembers: true });

describe('the check of a document', () => {
  it('runs at once when it is short, otherwise in the thread, with the same result', async () => {
    const steps = new SlowSteps();
    await using _scheduler = steps.scheduler;
    const check = checkInTurnsOf({ properties: { n: { uniqueItems: true } } });
    const work = steps.work('write');
    const fault = [{ path: '/n', message: 'must not have duplicate elements' }];
    expect(check(content('"n":[1,1]'), work)).toEqual(fault);
    const long = check(content(`"n":[${Array(20_000).fill(1).join()}]`), work);
    expect(long).toBeInstanceOf(Promise);
    expect(await long).toEqual(fault);
  });

  it('reports one fault of a large document, since its paths may be long', async () => {
    const steps = new SlowSteps();
    await using _scheduler = steps.scheduler;
    const check = checkInTurnsOf({ properties: { n: { items: { type: 'string' } } } });
    const work = steps.work('write');
    expect(await check(content(`"n":[${Array(100).fill(1).join()}]`), work)).toHaveLength(20);
    expect(await check(content(`"n":[${Array(100_000).fill(1).join()}]`), work)).toHaveLength(1);
  });

  it('refuses a document that would take too many steps', async () => {
    const steps = new SlowSteps();
    await using _scheduler = steps.scheduler;
    const [schema, members] = HOSTILE['references in a circle']!;
    expect(await checkInTurnsOf(schema)(content(members), steps.work('write'))).toEqual([
      { path: '', message: expect.stringContaining(`takes more than ${STEPS_MAX} steps`) },
    ]);
  });

  it('names the faults that it found in time', () => {
    const [costly, members] = HOSTILE['alternatives that double at each depth']!;
    const schema = { required: ['title'], allOf: [costly] };
    expect(compileSchema(schema)(readValue(`{${members}}`), 50_000, 20)).toEqual([
      { path: '', message: 'must have the member title' },
    ]);
  });

  it.each(Object.entries(HOSTILE))('ends after a bounded time with %s', (_what, [schema, members]) => {
    expect(JSON.stringify(schema).length).toBeLessThan(65_536);
    const check = compileSchema(schema);
    const value = readValue(`{${members}}`);
    const before = process.threadCpuUsage();
    const steps = 1_000_000;
    // Undefined, or the faults that were found in time.
    expect(check(value, steps, 20)).not.toEqual([]);
    const { user } = process.threadCpuUsage(before);
    // Some 0.05 to 0.2 s.
    expect(user).toBeLessThan(5_000_000);
  });

  it('stays within the stack, even deep in a call', () => {
    const chain = numbers(1_000).map((n) => [n, { allOf: [{ $ref: `#/$defs/${n + 1}` }] }]);
    const $defs = { ...Object.fromEntries(chain), 1000: {} };
    const check = compileSchema({ properties: { n: { $ref: '#/$defs/0' } }, $defs });
    const callDeeper = (calls: number): unknown =>
      calls > 0 ? callDeeper(calls - 1) : check({ n: 1 }, STEPS_MAX, 1);
    expect(callDeeper(500)).toBeUndefined();
  });
});

import { describe, expect, it } from 'vitest';
import { SlowSteps } from '../testing/slow-steps.ts';
import { acceptInTurns, checkInTurnsOf } from './schema-checks.ts';
import { valuesOfSchema } from './schema-work.ts';

const content = (text: string) => ({ bytes: Buffer.from(text), hasMembers: true });

describe('a schema', () => {
  it('counts the values of its references each time, and only up to the limit', () => {
    expect(valuesOfSchema({}, 10)).toBe(1);
    expect(valuesOfSchema({ type: 'object', required: ['a'] }, 10)).toBe(4);
    const twice = { $defs: { a: { type: 'string' } }, allOf: [{ $ref: '#/$defs/a' }, { $ref: '#/$defs/a' }] };
    expect(valuesOfSchema(twice, 100)).toBe(1 + 3 + 1 + 2 * 3);
    expect(valuesOfSchema({ $ref: '#' }, 100)).toBe(2);
    expect(valuesOfSchema({ a: { $ref: '#/a' } }, 100)).toBe(101);
  });

  it('yields before each compilation when it is accepted', async () => {
    const steps = new SlowSteps();
    const check = await acceptInTurns({ type: 'object' }, steps.work('definition'));
    // The first needs none, because nothing waits.
    expect(steps.turns).toBe(2);
    expect(check?.(content('"a":1'), steps.work('write'))).toEqual([]);
  });

  it('checks a small document synchronously and an expensive one in the thread, with the same result', async () => {
    const steps = new SlowSteps();
    await using _scheduler = steps.scheduler;
    const check = checkInTurnsOf({ properties: { n: { uniqueItems: true } } });
    const work = steps.work('write');
    const fault = [{ path: '/n', message: 'must not have duplicate items' }];
    expect(check(content('"n":[1,1]'), work)).toEqual(fault);
    const long = check(content(`"n":[${Array(20_000).fill(1).join()}]`), work);
    expect(long).toBeInstanceOf(Promise);
    expect(await long).toEqual(fault);
  });
});

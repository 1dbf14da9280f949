import { describe, expect, it } from 'vitest';
import { IDEMPOTENCY_ANSWERS_MAX } from '../port/port.ts';
import { IdempotencyRecords } from './idempotency-records.ts';

const used = (key: string, answerLength: number) => ({
  key,
  request: 'r',
  atMs: 1,
  answer: 'x'.repeat(answerLength),
});

describe('the stored idempotency keys', () => {
  it('have a limit on their answers, and the oldest are dropped first', () => {
    const keys = new IdempotencyRecords();
    const quarter = IDEMPOTENCY_ANSWERS_MAX / 4;
    for (const key of ['a', 'b', 'c', 'd']) keys.add(used(key, quarter));
    expect(keys.get('a')).toBeDefined();
    keys.add(used('e', 1));
    expect([...keys].map(({ key }) => key)).toEqual(['b', 'c', 'd', 'e']);
  });

  it('count a repeated answer once', () => {
    const keys = new IdempotencyRecords();
    const half = IDEMPOTENCY_ANSWERS_MAX / 2;
    keys.add(used('a', half));
    for (let times = 0; times < 5; times++) keys.add(used('b', half));
    expect([...keys].map(({ key }) => key)).toEqual(['a', 'b']);
  });
});

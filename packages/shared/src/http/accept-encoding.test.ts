import { describe, expect, it } from 'vitest';
import { type Coding, preferredCoding } from './accept.ts';

const both = () => true;
const only = (kept: Coding) => (coding: Coding) => coding === kept;

describe('the content coding of an answer', () => {
  it.each([
    ['gzip, deflate, br, zstd', both, 'br'],
    ['gzip', both, 'gzip'],
    ['GZIP;q=0.5', both, 'gzip'],
    ['br;q=0, gzip', both, 'gzip'],
    ['br;q=0.000, gzip;q=0', both, undefined],
    ['*', both, 'br'],
    ['*;q=0', both, undefined],
    ['br;q=0, *', both, 'gzip'],
    ['identity', both, undefined],
    ['', both, undefined],
    [undefined, both, undefined],
    ['br, gzip', only('gzip'), 'gzip'],
    ['br', only('gzip'), undefined],
  ])('the content coding for %j is the smallest one that is accepted and stored', (header, has, coding) => {
    expect(preferredCoding(header, has)).toBe(coding);
  });
});

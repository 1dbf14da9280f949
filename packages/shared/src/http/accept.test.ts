import { expect, it } from 'vitest';
import { preferred } from './accept.ts';

const OFFERED = ['application/json', 'application/x-ndjson', 'text/event-stream'] as const;
const [JSON_TYPE, LINES, EVENTS] = OFFERED;

it.each([
  [undefined, undefined],
  ['', undefined],
  ['image/png', undefined],
  ['*/*', JSON_TYPE],
  [EVENTS, EVENTS],
  ['TEXT/Event-Stream', EVENTS],
  [`${JSON_TYPE};q=0.1, ${EVENTS}`, EVENTS],
  [`${EVENTS};q=0.1, ${JSON_TYPE};q=0.2, ${LINES};q=0.9`, LINES],
  [`${EVENTS};q=0.5,*/*;q=0.4`, EVENTS],
  ['text/*, application/*;q=0.9', EVENTS],
  [`*/*, ${JSON_TYPE};q=0`, LINES],
  [`${JSON_TYPE};q=0, ${LINES};q=0.000`, undefined],
  [`, ,${LINES},`, LINES],
  [`${LINES} ; charset=utf-8 ; Q=0.5, ${JSON_TYPE};q=0.4`, LINES],
  [`${EVENTS}, */*`, EVENTS],
  [`${JSON_TYPE}, ${EVENTS}`, JSON_TYPE],
  [`${EVENTS}, ${JSON_TYPE}`, EVENTS],
] as const)('the Accept header %j prefers %j', (accept, type) => {
  expect(preferred(accept, OFFERED)).toBe(type);
});

import { expect, it } from 'vitest';
import { fatalMessage } from './service.mjs';

it.each([
  ['{"level":"fatal","service":"bundoc","msg":"the data folder is in use"}', 'the data folder is in use'],
  ['{"level":"info","msg":"\\"fatal\\" is only a word here"}', undefined],
  ['{"level":"fatal", broken', undefined],
  ['Warning: "fatal"', undefined],
])('finds the reason that a service gives in %s', (line, expected) => {
  expect(fatalMessage(line)).toBe(expected);
});

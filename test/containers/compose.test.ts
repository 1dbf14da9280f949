import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe } from 'vitest';
import { isolatesExport } from './isolation.ts';
import { takesOwnKek } from './own-kek.ts';
import { type Stack, startStack } from './support/stack.ts';
import { works } from './workflow.ts';

/**
 * One project for all tests, since a start takes half a minute. They run one after the other, and no other
 * file starts containers: for each new network, Docker removes the rule that separates all networks for some
 * milliseconds, then adds it again.
 */
describe('the compose project', needs('docker'), () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack();
  });
  afterAll(() => stack?.[Symbol.asyncDispose]());

  describe('in use,', () => works(() => stack));
  describe('with a token for the export of keys,', () => isolatesExport(() => stack));
  describe('from the development KEK to a KEK of one’s own,', () => takesOwnKek(() => stack));
});

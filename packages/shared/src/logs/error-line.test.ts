import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { formatError } from './error-line.ts';

const here = import.meta.filename;

it.each<[string, () => Promise<unknown>]>([
  [`${here}.none does not exist`, () => open(`${here}.none`)],
  [`${here} exists already`, () => mkdir(here)],
  [`${join(here, 'a')} is below a file`, () => open(join(here, 'a'))],
])("The system's error of a file is a sentence for a person: %s", async (sentence, use) => {
  const error = await use().catch((thrown: unknown) => thrown);
  expect(formatError(error)).toBe(sentence);
  expect(formatError(new AppError('disk_full', { cause: error }))).toBe(
    `disk_full: The disk is full: ${sentence}`,
  );
});

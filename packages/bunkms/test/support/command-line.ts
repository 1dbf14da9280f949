import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, expect } from 'vitest';
import { bunkms } from './command.ts';
import { withDatabase } from './database.ts';

export let folder: string;
export let environment: { BUNKMS_DATA_DIR: string; BUNKMS_KEK_FILE: string };
export let tokenFile: string;
export const run = (...args: string[]) => bunkms(environment, ...args);
export const init = () => run('init', '--create-kek', '--service-token', tokenFile);

export const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(String(token.split('.')[1]), 'base64url').toString());

export const edit = (sql: string) =>
  withDatabase(environment.BUNKMS_DATA_DIR, (database) => database.exec(sql));

/** One line on stderr, no stack, nothing on stdout. */
export const expectFailure = (finished: Finished, code: number, message: RegExp) => {
  expect(finished.stderr.trim()).toMatch(message);
  expect(finished.stderr.trim().split('\n')).toHaveLength(1);
  expect({ code: finished.code, stdout: finished.stdout }).toEqual({ code, stdout: '' });
};

/** Call it in a file: each test has a data folder and paths of its own, in which nothing is created yet. */
export function useCommandLine(): void {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-cli-'));
    environment = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK_FILE: join(folder, 'secrets', 'kek') };
    tokenFile = join(folder, 'secrets', 'token');
  });
  afterEach(() => rmSync(folder, { recursive: true }));
}

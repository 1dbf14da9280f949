import { storageInfoSchema } from '@bundoc/shared/contract/storages';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import type { KeyRecord } from '../../src/records/key-record.ts';
import type { Answer } from './http.ts';
import { startKms, type TestKms } from './kms.ts';
import { KeyCalls } from './lifecycle.ts';
import { TestStorageNode } from './storages.ts';

export const NAME = 'a-dek';

/** A lease, and the margin added to it before a take-over. */
export const LEASE_MS = 900_000;
export const USE_MS = LEASE_MS + 5_000;
export let clock: FakeClock;
export let kms: TestKms;
export let keys: KeyCalls;
export let admin: string;
export let s: TestStorageNode;
export let t: TestStorageNode;

export const recordOf = async (name = NAME) =>
  (await kms.store.findKey(name, 'current'))?.record as KeyRecord;

export const takeOver = (path: string, body: object) =>
  kms.api(`/v1/${path}/take-over`, { token: admin, body });

export const takeOverKey = (body: object) => takeOver(`keys/${NAME}`, body);
export const takeOverStorage = (id: string, body: object = {}) => takeOver(`storages/${id}`, body);

export const storageOf = async (id: string) => {
  const answer = await kms.api(`/v1/storages/${id}`, { token: admin });
  expect(answer.status, answer.text).toBe(200);
  return storageInfoSchema.strict().parse(answer.json());
};

export const latest = async (action: string) =>
  (await kms.records()).findLast((record) => record.action === action);

export const expectRefused = (answer: Answer, status: number, code: string, more: object = {}) =>
  expect([answer.status, answer.json()]).toEqual([status, expect.objectContaining({ code, ...more })]);

/** Call it in a file or a `describe`: each test has a service of its own and two storages, `s` and `t`. */
export function useHolders(): void {
  beforeEach(async () => {
    // The service sweeps at its start, but not again during a test.
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    clock = new FakeClock();
    kms = await startKms({ clock });
    keys = await KeyCalls.of(kms);
    admin = await kms.fullToken();
    s = await TestStorageNode.of(kms);
    t = await TestStorageNode.of(kms);
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    vi.useRealTimers();
  });
}

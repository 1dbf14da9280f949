import { encryptedSchema } from '@bundoc/shared/contract/crypto';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach } from 'vitest';
import { FaultyStore } from './faulty-store.ts';
import type { Answer } from './http.ts';
import { startKms, type TestKms } from './kms.ts';
import { KeyCalls } from './lifecycle.ts';

export const NAME = 'a-dek';
export const b64 = (text: string | Buffer) => Buffer.from(text).toString('base64');
export const SECRET = b64('a secret of forty-two bytes, to be looked for');
export let clock: FakeClock;
export let faulty: FaultyStore;
export let kms: TestKms;
export let keys: KeyCalls;

export const encrypt = (plaintext_b64 = SECRET, aad_b64?: string, name = NAME) =>
  keys.crypto('encrypt', name, { plaintext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });

export const decrypt = (ciphertext_b64: string, aad_b64?: string, name = NAME) =>
  keys.crypto('decrypt', name, { ciphertext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });

export const rewrap = (ciphertext_b64: string, aad_b64?: string) =>
  keys.crypto('rewrap', NAME, { ciphertext_b64, ...(aad_b64 === undefined ? {} : { aad_b64 }) });

export const ciphertextOf = (answer: Answer) => encryptedSchema.strict().parse(answer.json()).ciphertext_b64;

export const withoutId = (answer: Answer) => {
  const { request_id: _, ...problem } = answer.json();
  return JSON.stringify([answer.status, problem, answer.headers['content-type']]);
};

/** Call it in a file: each test has a service of its own, with one key and a store that can fail. */
export function useEncryption(): void {
  beforeEach(async () => {
    clock = new FakeClock();
    faulty = new FaultyStore();
    kms = await startKms({ clock, decorate: faulty.decorate });
    keys = await KeyCalls.of(kms);
    await keys.create(NAME);
  });
  afterEach(() => kms[Symbol.asyncDispose]());
}

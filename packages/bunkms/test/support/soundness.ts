import { expect } from 'vitest';
import { KeyVerification } from '../../src/audit/verify-keys.ts';
import { verifyChain } from '../../src/records/chain.ts';
import type { TestKms } from './kms.ts';

/** The keys whose rows do not match the audit chain, as `bunkms audit verify` finds them. */
export async function damagedKeys(kms: TestKms): Promise<string[]> {
  const verification = new KeyVerification();
  for (const record of await kms.records()) verification.note(record);
  return verification.damagedKeys(kms.store, (await kms.secrets()).chainKey);
}

/** Expects an intact chain and keys that match it. */
export async function expectSound(kms: TestKms): Promise<void> {
  const { chainKey } = await kms.secrets();
  expect(await verifyChain(chainKey, await kms.records())).toMatchObject({ intact: true });
  expect(await damagedKeys(kms)).toEqual([]);
}

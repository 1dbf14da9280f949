import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { exportedKeySchema, keyPageSchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach } from 'vitest';
import { newDataDir, startKms, type TestKms } from './kms.ts';
import { KeyCalls } from './lifecycle.ts';
import { type RestoreFrom, restoreInto } from './recovery.ts';

export let kms: TestKms;
export let keys: KeyCalls;

/** The folder of the restored store. */
export let dataDir: string;

export const restoreHere = (from: Omit<RestoreFrom, 'kek' | 'dataDir'>) =>
  restoreInto({ kek: kms.kek, dataDir, ...from });

export const openRestored = () => startKms({ dataDir, kek: kms.kek });

export async function statesOf(restored: TestKms): Promise<Record<string, string>> {
  const page = keyPageSchema.parse((await (await KeyCalls.of(restored)).list()).json());
  return Object.fromEntries([
    ...page.keys.map(({ name, state }) => [name, state]),
    ...(page.damaged ?? []).map((name) => [name, 'damaged']),
  ]);
}

export const materialOf = async (calls: KeyCalls, name: string, version?: number) =>
  exportedKeySchema.parse((await calls.export(name, version)).json()).key_material_b64;

/** Call it in a file: each test has a service of its own, and a folder for the restored store. */
export function useRestores(): void {
  beforeEach(async () => {
    kms = await startKms();
    keys = await KeyCalls.of(kms);
    dataDir = join(newDataDir(), 'kms');
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    rmSync(join(dataDir, '..'), { recursive: true });
  });
}

import { rmSync } from 'node:fs';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach } from 'vitest';
import type { Answer } from './http.ts';
import { kekIdOfText } from './keks.ts';
import { newDataDir, newKek, startKms, type TestKms } from './kms.ts';
import { testStorage } from './storage.ts';

export let dataDir: string;
export let old: string;
export let further: string;
export const start = (kek: string) => startKms({ dataDir, kek });

/** A service with both KEKs in the ring; their order does not matter. */
export const startBoth = (kek = `${old}\n${further}`) => start(kek);
export const bytesOf = ({ wrapped_b64 }: ExportedKey) => Buffer.from(wrapped_b64, 'base64');
export const keyIn = (answer: Answer) => exportedKeySchema.strict().parse(answer.json());

export const retire = async (kms: TestKms, more: object = {}) =>
  kms.api('/v1/kek/retire', {
    token: await kms.fullToken(),
    body: { kek_id: kekIdOfText(old), ...more },
  });

export const unfetched = async (kms: TestKms) => {
  const token = await kms.fullToken();
  return (await kms.api(`/v1/kek/${kekIdOfText(old)}/unfetched`, { token })).json().keys;
};

export const actionsOf = async (kms: TestKms, action: RegExp) =>
  (await kms.records()).filter((record) => action.test(record.action));

export const isStored = (bytes: Buffer) => testStorage().holds(dataDir, bytes);

/** Call it in a file or a `describe`: each test has a data folder and two KEKs of its own. */
export function useKeks(): void {
  beforeEach(() => {
    dataDir = newDataDir();
    [old, further] = [newKek(), newKek()];
  });
  afterEach(() => rmSync(dataDir, { recursive: true }));
}

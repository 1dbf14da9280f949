import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import { afterEach, beforeEach, expect } from 'vitest';
import { verifyChain } from '../../src/records/chain.ts';
import { startKms, type TestKms } from './kms.ts';
import { edit, KeyCalls } from './lifecycle.ts';
import { writeProject } from './recovery.ts';
import { damagedKeys } from './soundness.ts';

export let kms: TestKms;
export let keys: KeyCalls;

/** Bundoc's data folder. */
export let bundoc: string;
export const folders: string[] = [];
export const services: TestKms[] = [];

/** A new service with an empty store, as after the loss of the former one. */
export async function newService(kek = kms.kek): Promise<TestKms> {
  const service = await startKms({ kek });
  services.push(service);
  return service;
}

export const exported = async (calls: KeyCalls, name: string, version?: number): Promise<ExportedKey> =>
  exportedKeySchema.parse((await calls.export(name, version)).json());

/** Creates a project whose key has that many versions, all of which Bundoc uses. */
export async function makeProject(project: string, versions = 1): Promise<ExportedKey[]> {
  const name = `${project}-dek`;
  await keys.create(name);
  for (let version = 2; version <= versions; version++) await keys.post(name, 'rotate');
  const all: ExportedKey[] = [];
  for (let version = 1; version <= versions; version++) all.push(await exported(keys, name, version));
  writeProject(bundoc, project, all);
  return all;
}

/** The facts of a version, wherever it is stored. */
export const essenceOf = ({ key_id, version, kcv, key_material_b64 }: ExportedKey) => [
  key_id,
  version,
  kcv,
  key_material_b64,
];

export async function expectWhole(at: TestKms, all: readonly ExportedKey[]): Promise<void> {
  const calls = await KeyCalls.of(at);
  for (const one of all)
    expect(essenceOf(await exported(calls, one.name, one.version))).toEqual(essenceOf(one));
  const { chainKey } = await at.secrets();
  expect(await verifyChain(chainKey, await at.records())).toMatchObject({ intact: true });
}

export const expectNoDamage = async (at: TestKms) => expect(await damagedKeys(at)).toEqual([]);

export const codeOf = async (calls: KeyCalls, name: string, version?: number) =>
  (await calls.export(name, version)).json().code;

export const NAME = 'p-dek';
export const ID = `(SELECT id FROM keys WHERE name = '${NAME}')`;
export const withoutForeignKeys = (sql: string) => edit(kms, `PRAGMA foreign_keys = OFF; ${sql}`);

/** Call it in a file: each test has a service, and a data folder of Bundoc to recover its keys from. */
export function useRecovery(): void {
  beforeEach(async () => {
    kms = await startKms();
    keys = await KeyCalls.of(kms);
    bundoc = mkdtempSync(join(tmpdir(), 'bunkms-bundoc-'));
  });
  afterEach(async () => {
    for (const one of [kms, ...services.splice(0)]) await one[Symbol.asyncDispose]();
    for (const folder of [bundoc, ...folders.splice(0)]) rmSync(folder, { recursive: true, force: true });
  });
}

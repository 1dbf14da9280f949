import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The members of every Wycheproof test. `acceptable` does not occur in the files that are used here. */
export interface WycheproofTest {
  readonly tcId: number;
  readonly comment: string;
  readonly result: 'valid' | 'invalid' | 'acceptable';
  readonly flags: readonly string[];
}

export type WycheproofGroup<Group, Test> = Group & { readonly tests: readonly (Test & WycheproofTest)[] };

/** The project's root, seen from `src/testing` and from `dist/testing`. */
const PROJECT_ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
/** Default of `WYCHEPROOF_DIR`, relative to the root. */
const DEFAULT_DIR = '../shared/vectors';

/** What tests read of that folder. */
const NEEDED = [
  'aes_gcm_test.json',
  'ed25519_test.json',
  'hkdf_sha256_test.json',
  'hmac_sha256_test.json',
  'json_web_signature_test.json',
  'json-schema-2020-12',
];

/**
 * The folder of published vectors: `WYCHEPROOF_DIR`, or the one next to the project. The project contains no
 * copy of them.
 *
 * @returns undefined when it does not have all files that tests read.
 */
export function vectorsFolder(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string | undefined {
  const folder = resolve(PROJECT_ROOT, environment['WYCHEPROOF_DIR'] || DEFAULT_DIR);
  return NEEDED.every((name) => existsSync(join(folder, name))) ? folder : undefined;
}

/**
 * The test groups of a file of published vectors (C2SP/wycheproof, `testvectors_v1`).
 *
 * @returns none without the folder, for tests that are skipped then.
 * @throws when the file has another number of tests than it announces.
 */
export function loadWycheproof<Group, Test>(
  fileName: string,
  folder = vectorsFolder(),
): readonly WycheproofGroup<Group, Test>[] {
  if (folder === undefined) return [];
  const path = join(folder, fileName);
  const file = JSON.parse(readFileSync(path, 'utf8')) as {
    numberOfTests: number;
    testGroups: readonly WycheproofGroup<Group, Test>[];
  };
  const count = file.testGroups.reduce((sum, group) => sum + group.tests.length, 0);
  if (count === 0 || count !== file.numberOfTests)
    throw new Error(`${path} does not have the number of tests that it announces`);
  return file.testGroups;
}

/** Bytes of a hexadecimal member of a vector. */
export function unhex(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}

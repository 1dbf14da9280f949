import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
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

/**
 * The test groups of a file of published vectors (C2SP/wycheproof, `testvectors_v1`), from `WYCHEPROOF_DIR`
 * or the folder next to the project. The project contains no copy of them.
 *
 * @returns undefined when the file is missing, so that the caller can visibly skip its tests.
 * @throws when it is missing although `REQUIRE_VECTORS=1`, or is not such a file.
 */
export function loadWycheproof<Group, Test>(
  fileName: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): readonly WycheproofGroup<Group, Test>[] | undefined {
  const path = vectorsAt(fileName, environment);
  if (path === undefined) return undefined;
  const file = JSON.parse(readFileSync(path, 'utf8')) as {
    numberOfTests: number;
    testGroups: readonly WycheproofGroup<Group, Test>[];
  };
  const count = file.testGroups.reduce((sum, group) => sum + group.tests.length, 0);
  if (count === 0 || count !== file.numberOfTests)
    throw new Error(`${path} does not have the number of tests that it announces`);
  return file.testGroups;
}

/**
 * The path of published vectors: a file or folder in `WYCHEPROOF_DIR`, or in the folder next to the project.
 *
 * @returns undefined when it does not exist, so that the caller can visibly skip its tests.
 * @throws when it does not exist although `REQUIRE_VECTORS=1`.
 */
export function vectorsAt(
  name: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): string | undefined {
  const path = resolve(PROJECT_ROOT, environment['WYCHEPROOF_DIR'] || DEFAULT_DIR, name);
  if (existsSync(path)) return path;
  if (environment['REQUIRE_VECTORS'] === '1')
    throw new Error(`REQUIRE_VECTORS=1, but the vectors ${path} are missing`);
  return undefined;
}

/** Bytes of a hexadecimal member of a vector. */
export function unhex(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}

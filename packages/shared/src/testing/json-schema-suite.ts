import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { vectorsAt } from './wycheproof.ts';

/** A schema of the JSON Schema Test Suite, with its verdicts on some values. */
export interface SuiteGroup {
  /** Name of the group's file. */
  readonly file: string;
  readonly description: string;
  readonly schema: unknown;
  readonly tests: readonly {
    readonly description: string;
    readonly data: unknown;
    readonly valid: boolean;
  }[];
}

/** Files of the required cases for draft 2020-12. */
const FILES_MIN = 46;

/**
 * The required cases of the JSON Schema Test Suite for draft 2020-12, from the folder `json-schema-2020-12`
 * next to the other published vectors.
 *
 * @returns undefined when the folder is missing, so that the caller can visibly skip its tests.
 * @throws when it is missing although `REQUIRE_VECTORS=1`, or has fewer files than the suite.
 */
export function loadJsonSchemaSuite(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): readonly SuiteGroup[] | undefined {
  const folder = vectorsAt('json-schema-2020-12', environment);
  if (folder === undefined) return undefined;
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  if (files.length < FILES_MIN) throw new Error(`${folder} has ${files.length} of ${FILES_MIN} files`);
  return files.flatMap((file) => {
    const groups = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Omit<SuiteGroup, 'file'>[];
    return groups.map((group) => ({ file, ...group }));
  });
}

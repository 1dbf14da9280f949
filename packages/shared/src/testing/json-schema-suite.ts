import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { vectorsFolder } from './wycheproof.ts';

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
 * @returns none without that folder, for tests that are skipped then.
 * @throws when it has fewer files than the suite.
 */
export function loadJsonSchemaSuite(vectors = vectorsFolder()): readonly SuiteGroup[] {
  if (vectors === undefined) return [];
  const folder = join(vectors, 'json-schema-2020-12');
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  if (files.length < FILES_MIN) throw new Error(`${folder} has ${files.length} of ${FILES_MIN} files`);
  return files.flatMap((file) => {
    const groups = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Omit<SuiteGroup, 'file'>[];
    return groups.map((group) => ({ file, ...group }));
  });
}

import type { DocumentContent } from '../../crypto/stored-text.ts';
import type { Path } from '../../values/path.ts';
import { readValue } from '../../values/value.ts';
import { TREE_BYTES_MAX } from '../../work/large-bytes.ts';
import type { Work } from '../../work/work.ts';
import type { IndexSpec } from '../port/index-port.ts';
import { type IndexKeys, indexKeysOf, JOBS } from './index-keys.ts';

const OPEN_BRACE = Buffer.from('{');
const CLOSE_BRACE = Buffer.from('}');

/** An index whose keys are computed. */
export interface KeyedIndex {
  readonly spec: IndexSpec;
  readonly paths: readonly Path[];
}

/** Whether its fields are members of the client, whose values are known before the commit. */
export function isOfOwnMembers({ spec }: Pick<KeyedIndex, 'spec'>): boolean {
  return spec.fields.every((field) => !field.startsWith('_'));
}

/** The keys of a client's document in some indexes, in their order. Only of those of own members. */
export function keysOfContent(
  indexes: readonly KeyedIndex[],
  { bytes }: DocumentContent,
  work: Work,
): Promise<readonly IndexKeys[]> {
  return keysInTurns(indexes, [OPEN_BRACE, bytes, CLOSE_BRACE], work);
}

/**
 * The keys of a document in some indexes, in their order. Yields before; those of a large document are
 * computed in another thread.
 *
 * @param text in pieces.
 */
export async function keysInTurns(
  indexes: readonly KeyedIndex[],
  text: readonly Buffer[],
  work: Work,
): Promise<readonly IndexKeys[]> {
  const turn = work.pause();
  if (turn !== undefined) await turn;
  const [only] = text;
  const bytes = text.length === 1 && only !== undefined ? only : Buffer.concat(text);
  if (bytes.length > TREE_BYTES_MAX)
    return await work.elsewhere(JOBS.indexKeys, { bytes, fields: indexes.map(({ spec }) => spec.fields) });
  const value = readValue(bytes.toString());
  return indexes.map(({ paths }) => indexKeysOf(paths, value));
}

import { systemClock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { ProjectStore } from '../../port/port.ts';
import type { Queryable } from '../database/database.ts';
import { RowCipher } from '../rows/row-cipher.ts';
import { RowReader } from './row-reader.ts';
import { SharedReads } from './shared-reads.ts';

/**
 * Reads changes of a project as nodes do: over any connection, or inside a transaction that holds its lock.
 */
export function pagesOfRows(
  queryable: Queryable,
  project: string,
  cipher: ProjectCipher,
): ProjectStore['sealedChanges'] {
  const reads = new SharedReads(queryable);
  const options = { project, database: queryable, reads, cipher, clock: systemClock };
  const reader = new RowReader(
    { ...options, onIntegrityError: () => undefined },
    new RowCipher(project, cipher),
  );
  return (after, limits) => reader.sealedChanges(after, limits);
}

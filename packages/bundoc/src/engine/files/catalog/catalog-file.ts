import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import {
  CATALOG_FILE,
  CATALOG_HEAD_BYTES_MAX,
  type CatalogHead,
  parseCatalogHead,
} from '@bundoc/shared/contract/catalog-head';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { formatError } from '@bundoc/shared/logs/error-line';
import { inSteps } from '../../../work/in-steps.ts';
import type { OwnWork } from '../../../work/work.ts';
import { type Disk, LARGE_FILE_BYTES_MAX, type ReadableFile } from '../disk/disk.ts';
import { FileWindow } from '../disk/file-window.ts';
import { takeChunk } from './sealed-chunks.ts';
import {
  CATALOG_CHUNK_BYTES_MAX,
  CatalogDamaged,
  SnapshotDecoder,
  type SnapshotHead,
  type SnapshotKeys,
  type SnapshotSink,
} from './snapshot.ts';

/** Opens the catalog of a project; undefined when there is none. @throws CatalogDamaged. */
export async function openCatalog(
  disk: Pick<Disk, 'openToRead'>,
  directory: string,
): Promise<ReadableFile | undefined> {
  try {
    return await disk.openToRead(join(directory, CATALOG_FILE), LARGE_FILE_BYTES_MAX);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) throw new CatalogDamaged(formatError(error.cause));
    throw error;
  }
}

/**
 * Reads a catalog chunk by chunk, each in steps. A chunk is authenticated before the next one is read, so a
 * file of any size and content costs the memory of one chunk.
 *
 * @throws CatalogDamaged for anything but a complete, authentic one of this project. Then the sink has what
 * is before the damage.
 */
export async function readCatalog(
  project: string,
  keys: SnapshotKeys,
  file: ReadableFile,
  sink: SnapshotSink,
  own: OwnWork,
): Promise<{ readonly head: SnapshotHead; readonly keyVersion: number }> {
  using window = new FileWindow(file);
  const { clear, bytes } = await readClearHead(window);
  const decoder = new SnapshotDecoder(project, keys, clear, bytes, sink);
  using work = own('snapshot');
  try {
    for (;;) {
      const chunk = await takeChunk(window, CATALOG_CHUNK_BYTES_MAX);
      const head = await inSteps(decoder.take(chunk), work);
      if (chunk.isLast) return { head, keyVersion: clear.keyVersion };
    }
  } catch (error) {
    if (error instanceof OpenError) throw new CatalogDamaged('it does not open');
    throw error;
  }
}

async function readClearHead(
  window: FileWindow,
): Promise<{ readonly clear: CatalogHead; readonly bytes: Buffer }> {
  const start = await window.peek(CATALOG_HEAD_BYTES_MAX);
  const clear = parseCatalogHead(start);
  if (clear === undefined) throw new CatalogDamaged('it is no catalog of a known format');
  // A copy, because the chunks need it after the window has moved.
  const bytes = Buffer.from(start.subarray(0, clear.end));
  window.skip(clear.end);
  return { clear, bytes };
}

import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import {
  CATALOG_FILE,
  CATALOG_HEAD_BYTES_MAX,
  type CatalogStart,
  parseCatalogHead,
} from '@bundoc/shared/contract/catalog-head';
import type { Disk } from '../disk/disk.ts';

/** Holds the whole head of nearly every catalog: a key version takes some 150 bytes of it. */
const USUAL_HEAD_BYTES = 4_096;

/**
 * The clear head of a project's catalog; undefined when it is missing, unreadable, or that of another
 * project. A copy of a project's folder has the handle of the original, whose parts it must not get.
 */
export async function readCatalogStart(
  disk: Disk,
  projectsDir: string,
  project: string,
): Promise<CatalogStart | undefined> {
  const path = join(projectsDir, project, CATALOG_FILE);
  const read = (bytes: number) =>
    disk.readStart(path, bytes).catch((error: unknown) => {
      if (hasCode(error, 'project_damaged')) return undefined;
      throw error;
    });
  let start = await read(USUAL_HEAD_BYTES);
  if (start?.length === USUAL_HEAD_BYTES && parseCatalogHead(start) === undefined)
    start = await read(CATALOG_HEAD_BYTES_MAX);
  const head = start && parseCatalogHead(start);
  return head !== undefined && projectIn(head.projectFile) === project ? head : undefined;
}

function projectIn(projectFile: Buffer): unknown {
  try {
    return JSON.parse(projectFile.toString())?.project;
  } catch {
    return undefined;
  }
}

import { join } from 'node:path';
import { hasCode } from '@bundoc/shared/contract/app-error';
import {
  CATALOG_FILE,
  CATALOG_START_BYTES,
  type CatalogStart,
  parseCatalogStart,
} from '@bundoc/shared/contract/catalog-head';
import type { Disk } from '../disk/disk.ts';

/** The clear head of a project's catalog; undefined when it is missing or unreadable. */
export async function readCatalogStart(
  disk: Disk,
  projectsDir: string,
  project: string,
): Promise<CatalogStart | undefined> {
  const path = join(projectsDir, project, CATALOG_FILE);
  const start = await disk.readStart(path, CATALOG_START_BYTES).catch((error: unknown) => {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  });
  return start && parseCatalogStart(start);
}

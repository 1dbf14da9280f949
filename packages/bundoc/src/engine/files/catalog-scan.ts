import { join } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { readCatalogStart } from './catalog/catalog-start.ts';
import type { Disk } from './disk/disk.ts';
import type { FramePlace } from './log/layout.ts';
import type { Log } from './log/log.ts';

/** Concurrent reads of catalog heads. */
const READS_AT_ONCE = 16;

/** What a start reads from a catalog. */
interface KnownCatalog {
  readonly path: string;
  readonly handle: string;
  readonly covered: FramePlace;
}

export interface CatalogScan {
  readonly disk: Disk;
  readonly log: Log;
  readonly projectsDir: string;
  /** The project of each handle. */
  readonly projectOf: Map<string, string>;
  readonly isOpen: (handle: string) => boolean;
  /** True once the scan is no longer needed. */
  readonly isEnded: () => boolean;
}

/** Reads from the catalogs which project each handle of the log belongs to, and which parts they cover. */
export async function coverFromCatalogs(scan: CatalogScan): Promise<void> {
  const { disk, isOpen, log, projectOf, projectsDir } = scan;
  const handles = new Set([...log.handles, ...log.stuck.handles]);
  if (handles.size === 0) return;
  const names = ((await disk.list(projectsDir)) ?? []).values();
  const known: KnownCatalog[] = [];
  let isEveryRead = true;
  const readSome = async () => {
    for (const project of names) {
      if (scan.isEnded()) return;
      if (projectIdSchema.safeParse(project).data !== project) continue;
      const start = await readCatalogStart(disk, projectsDir, project).catch(() => {
        isEveryRead = false;
        return undefined;
      });
      // The store of an open project has already reported it.
      if (start === undefined || !handles.has(start.handle) || isOpen(start.handle)) continue;
      projectOf.set(start.handle, project);
      const path = join(projectsDir, project, CATALOG_FILE);
      if (start.covered !== undefined) known.push({ path, handle: start.handle, covered: start.covered });
    }
  };
  await Promise.all(Array.from({ length: READS_AT_ONCE }, readSome));
  // A process may have died between the rename of a catalog and its sync, so the catalogs are synced before
  // the log is freed.
  for (const { handle, covered } of await syncCatalogs(disk, known)) log.coverTo(handle, covered);
  // The other handles come from interrupted creations, which had no content. But an unreadable catalog may
  // need the empty part of an arrival, so this is only done when every catalog was read.
  if (scan.isEnded() || !isEveryRead) return;
  for (const handle of handles) if (!projectOf.has(handle)) log.coverEmpty(handle);
}

/** Syncs catalogs together, or one by one when that fails. @returns the durable ones. */
async function syncCatalogs(disk: Disk, known: readonly KnownCatalog[]): Promise<readonly KnownCatalog[]> {
  if (known.length === 0) return known;
  try {
    await disk.syncFiles(known.map(({ path }) => path));
    return known;
  } catch {
    const durable: KnownCatalog[] = [];
    for (const one of known)
      await disk.syncFiles([one.path]).then(
        () => durable.push(one),
        // Its parts stay in the log, or are carried.
        () => undefined,
      );
    return durable;
  }
}

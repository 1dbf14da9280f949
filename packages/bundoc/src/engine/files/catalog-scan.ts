import { join } from 'node:path';
import { CATALOG_FILE } from '@bundoc/shared/contract/catalog-head';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { readCatalogStart } from './catalog/catalog-start.ts';
import type { Disk } from './disk/disk.ts';
import { CARRIED_START_BYTES, handleInStart } from './log/carried-file.ts';
import type { FramePlace } from './log/layout.ts';
import type { Log } from './log/log.ts';
import { PartsDamaged } from './log/sealed-part.ts';
import { birthIn, CARRIED_BYTES_MAX, CARRIED_FOLDER } from './store/project-loader.ts';

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

/**
 * Reads from the catalogs which project each handle of the log belongs to, and which parts they cover. A
 * project without a catalog may have its birth only among its carried parts.
 */
export async function coverFromCatalogs(scan: CatalogScan): Promise<void> {
  const { disk, isOpen, log, projectOf, projectsDir } = scan;
  const handles = new Set([...log.handles, ...log.stuck.handles]);
  if (handles.size === 0) return;
  const names = ((await disk.list(projectsDir)) ?? []).values();
  const known: KnownCatalog[] = [];
  const bornInLog = new Set(projectOf.values());
  const withoutCatalog: string[] = [];
  const readSome = async () => {
    for (const project of names) {
      if (scan.isEnded()) return;
      if (projectIdSchema.safeParse(project).data !== project) continue;
      const start = await readCatalogStart(disk, projectsDir, project).catch(() => undefined);
      if (start === undefined && !bornInLog.has(project)) withoutCatalog.push(project);
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
  const unknown = new Set(handles.values().filter((handle) => !projectOf.has(handle)));
  for (const project of withoutCatalog) {
    if (unknown.size === 0 || scan.isEnded()) return;
    // A failing folder must not affect the others.
    const handle = await findBirth(scan, project, unknown).catch(() => undefined);
    if (handle === undefined) continue;
    projectOf.set(handle, project);
    unknown.delete(handle);
  }
}

/** The wanted handle whose birth is among a project's carried parts. */
async function findBirth(
  { disk, projectsDir }: CatalogScan,
  project: string,
  wanted: ReadonlySet<string>,
): Promise<string | undefined> {
  const folder = join(projectsDir, project, CARRIED_FOLDER);
  for (const name of (await disk.list(folder)) ?? []) {
    const path = join(folder, name);
    const start = await disk.readStart(path, CARRIED_START_BYTES);
    const handle = start && handleInStart(start);
    if (handle === undefined || !wanted.has(handle)) continue;
    const file = await disk.read(path, CARRIED_BYTES_MAX);
    // The folder may be a copy of another project's; the birth decides.
    if (file !== undefined && decodeBirthOrUndefined(file)?.project === project) return handle;
  }
  return undefined;
}

/** A damaged file fails its project when it is opened. */
function decodeBirthOrUndefined(file: Buffer): ReturnType<typeof birthIn> {
  try {
    return birthIn([file]);
  } catch (error) {
    if (error instanceof PartsDamaged) return undefined;
    throw error;
  }
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

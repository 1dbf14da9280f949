import { AppError } from '@bundoc/shared/contract/app-error';
import { CatalogDamaged } from '../catalog/snapshot.ts';
import { loadProject, PartsDamaged } from '../store/project-loader.ts';
import { ProjectFilesUnreadable, type ProjectPlace, readProject } from './project-reader.ts';

export interface ProjectStats {
  readonly documents: number;
  /** Deleted documents that the change feed still tells of. */
  readonly tombstones: number;
  /** Collections that hold a document. */
  readonly collections: number;
  /** Bytes of all document files. */
  readonly sealedBytes: number;
  /** Bytes of the log that a checkpoint has not covered yet; in files. */
  readonly logBytes?: number;
  /** Versions of the project's key that `project.json` lists. */
  readonly keyVersions: readonly number[];
  /** Sequence number of the last commit. */
  readonly lastSeq: number;
}

export type StatsOutcome =
  | ({ readonly project: string } & ProjectStats)
  | { readonly project: string; readonly error: string };

const EXPECTED = [AppError, ProjectFilesUnreadable, CatalogDamaged, PartsDamaged];

/** What a project holds, by catalog and log; no document is opened and nothing changed. */
export async function statsOfProject(project: ProjectPlace): Promise<StatsOutcome> {
  try {
    return { project: project.project, ...(await read(project)) };
  } catch (error) {
    if (!(error instanceof Error) || !EXPECTED.some((kind) => error instanceof kind)) throw error;
    return { project: project.project, error: error.message };
  }
}

async function read(project: ProjectPlace): Promise<ProjectStats> {
  const { file, place } = await readProject(project);
  const { store, logBytes } = await loadProject(place);
  const collections = store.catalog.collections();
  const documents = collections.reduce((sum, collection) => sum + collection.documents, 0);
  return {
    documents,
    tombstones: store.catalog.size - documents,
    collections: collections.length,
    sealedBytes: collections.reduce((sum, collection) => sum + collection.bytes, 0),
    logBytes,
    keyVersions: file.versions.map(({ version }) => version),
    lastSeq: store.catalog.lastSeq,
  };
}

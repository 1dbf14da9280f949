import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectStats, StatsOutcome } from '../../reports.ts';
import { CatalogDamaged } from '../catalog/snapshot.ts';
import { loadProject, PartsDamaged } from '../store/project-loader.ts';
import { ProjectFilesUnreadable, type ProjectPlace, readProject } from './project-reader.ts';

const EXPECTED = [AppError, ProjectFilesUnreadable, CatalogDamaged, PartsDamaged];

/** The totals of a project, from catalog and log; no document is decrypted and nothing is changed. */
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

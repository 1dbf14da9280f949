import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectStats, StatsOutcome } from '../../port/reports.ts';
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
  const { documents, bytes } = store.catalog.usage;
  return {
    documents,
    tombstones: store.catalog.size - documents,
    collections: store.catalog.collections().length,
    sealedBytes: bytes,
    logBytes,
    keyVersions: file.versions.map(({ version }) => version),
    lastSeq: store.catalog.lastSeq,
  };
}

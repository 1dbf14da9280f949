import { join } from 'node:path';
import { AppError } from '@bundoc/shared/errors';
import { readJournalFolder, surveyJournal } from '../storage/embedded/journal-folder.ts';
import { loadSnapshot } from '../storage/embedded/project-loader.ts';
import { JournalCorrupt } from '../storage/embedded/segment-reader.ts';
import { CatalogDamaged } from '../storage/embedded/snapshot.ts';
import { ProjectFilesUnreadable, type ProjectPlace, readProject } from './project-reader.ts';

export interface ProjectStats {
  readonly documents: number;
  /** Deleted documents that the change feed still tells of. */
  readonly tombstones: number;
  /** Collections that hold a document. */
  readonly collections: number;
  /** Bytes of all document files. */
  readonly sealedBytes: number;
  /** Journal bytes that a checkpoint has not covered yet; in files. */
  readonly journalLiveBytes?: number;
  /** Versions of the project's key that `project.json` lists. */
  readonly keyVersions: readonly number[];
  /** Sequence number of the last commit. */
  readonly lastSeq: number;
}

export type StatsOutcome =
  | ({ readonly project: string } & ProjectStats)
  | { readonly project: string; readonly error: string };

const EXPECTED = [AppError, ProjectFilesUnreadable, CatalogDamaged, JournalCorrupt];

/** What a project holds, by catalog and journal; no document is opened and nothing changed. */
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
  const { store, head } = await loadSnapshot(place);
  const folder = await readJournalFolder(place.disk, join(place.directory, 'journal'), place.cipher);
  const { live, faults } = surveyJournal(folder, head.start, (frame) => store.replay(frame));
  if (faults[0] !== undefined) throw new JournalCorrupt(faults[0]);
  const collections = store.catalog.collections();
  const documents = collections.reduce((sum, collection) => sum + collection.documents, 0);
  return {
    documents,
    tombstones: store.catalog.size - documents,
    collections: collections.length,
    sealedBytes: collections.reduce((sum, collection) => sum + collection.bytes, 0),
    journalLiveBytes: live.reduce((sum, segment) => sum + segment.used, 0),
    keyVersions: file.versions.map(({ version }) => version),
    lastSeq: store.catalog.lastSeq,
  };
}

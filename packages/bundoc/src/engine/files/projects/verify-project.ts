import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { OnProgress, VerifiedProject } from '../../port/reports.ts';
import { findingOf } from '../../port/reports.ts';
import { SMALL_FILE_BYTES_MAX } from '../../projects/project-file.ts';
import { isWithoutContent } from './file-projects.ts';
import { ProjectFilesUnreadable, type ProjectPlace, readProject } from './project-reader.ts';
import { verifyStore } from './verify.ts';

/**
 * Decrypts and checks everything in a project, and changes nothing. A project that cannot be opened is a
 * finding, as is any other error while it is read.
 */
export async function verifyProject(place: ProjectPlace, onProgress: OnProgress): Promise<VerifiedProject> {
  const { project, disk, directory } = place;
  try {
    const isProject = (await disk.read(join(directory, PROJECT_FILE), SMALL_FILE_BYTES_MAX)) !== undefined;
    // An interrupted creation, which the next write restarts.
    if (!isProject && (await isWithoutContent(disk, directory)))
      return { project, documents: 0, findings: [] };
    const read = await readProject(place);
    const verified = await verifyStore(read.place, onProgress);
    return { project, documents: verified.documents, findings: [...read.findings, ...verified.findings] };
  } catch (error) {
    if (error instanceof ProjectFilesUnreadable) return { project, documents: 0, findings: error.findings };
    if (error instanceof AppError) return { project, documents: 0, findings: [findingOf(error)] };
    throw error;
  }
}

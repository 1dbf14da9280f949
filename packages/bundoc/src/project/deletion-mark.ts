import { type DeletionMark, deletionMarkSchema } from '@bundoc/shared/contract/deletion-mark';
import { AppError } from '@bundoc/shared/errors';
import { parseMark } from './parse-mark.ts';

/** What the text of a mark begins with, and that of a project file does not. */
export const MARK_BEGINS = '{"deleted":';

export function newDeletionMark(project: string, since: string): DeletionMark {
  return { deleted: project, format: 1, since };
}

export function formatDeletionMark(mark: DeletionMark): string {
  return `${JSON.stringify(deletionMarkSchema.parse(mark))}\n`;
}

/** @throws AppError `project_damaged` for content that is no mark of this project. */
export function parseDeletionMark(project: string, content: string): DeletionMark {
  return parseMark(deletionMarkSchema, (mark) => mark.deleted, project, content);
}

/** A deletion only goes forward, whichever of several nodes writes last: what one of them knows stays known. */
export function mergedMark(present: DeletionMark | undefined, next: DeletionMark): DeletionMark {
  return { ...next, ...present };
}

/** What whoever asks for a deleted project is told, from the moment that its deletion has begun. */
export function projectDestroyed(mark: DeletionMark): AppError {
  return new AppError('project_destroyed', {
    detail: mark.finishedAt === undefined ? 'the project is being deleted' : 'the project was deleted',
  });
}

import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type DeletionMark, deletionMarkSchema } from '@bundoc/shared/contract/deletion-mark';
import { parseMark } from './parse-mark.ts';

export function formatDeletionMark(mark: DeletionMark): string {
  return `${JSON.stringify(deletionMarkSchema.parse(mark))}\n`;
}

/** @returns undefined for content that is no mark of this project. */
export function readDeletionMark(project: string, content: string): DeletionMark | undefined {
  try {
    return parseMark(deletionMarkSchema, (mark) => mark.deleted, project, content);
  } catch (error) {
    if (hasCode(error, 'project_damaged')) return undefined;
    throw error;
  }
}

/** The error for requests to a deleted project. */
export function projectDestroyed(): AppError {
  return new AppError('project_destroyed', { detail: 'the project was deleted' });
}

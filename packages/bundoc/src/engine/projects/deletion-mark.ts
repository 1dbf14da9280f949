import { AppError } from '@bundoc/shared/contract/app-error';
import { type DeletionMark, deletionMarkSchema } from '@bundoc/shared/contract/deletion-mark';

export function formatDeletionMark(mark: DeletionMark): string {
  return `${JSON.stringify(deletionMarkSchema.parse(mark))}\n`;
}

/** @returns undefined for content that is not a mark of this project. */
export function readDeletionMark(project: string, content: string): DeletionMark | undefined {
  try {
    const mark = deletionMarkSchema.parse(JSON.parse(content));
    return mark.deleted === project ? mark : undefined;
  } catch {
    return undefined;
  }
}

/** The error for requests to a deleted project. */
export function projectDestroyed(): AppError {
  return new AppError('project_destroyed', { detail: 'the project was deleted' });
}

import { AppError } from '@bundoc/shared/contract/app-error';
import type { z } from 'zod';

/**
 * Reads a mark that stands in the place of a project.
 *
 * @param projectOf whose mark it says that it is.
 * @throws AppError `project_damaged` for content that is no mark of this project.
 */
export function parseMark<Schema extends z.ZodType>(
  schema: Schema,
  projectOf: (mark: z.infer<Schema>) => string,
  project: string,
  content: string,
): z.infer<Schema> {
  let mark: z.infer<Schema>;
  try {
    mark = schema.parse(JSON.parse(content));
  } catch (error) {
    throw new AppError('project_damaged', { cause: error });
  }
  if (projectOf(mark) === project) return mark;
  throw new AppError('project_damaged', { cause: new Error('the mark is of another project') });
}

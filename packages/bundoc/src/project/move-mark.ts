import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { AppError } from '@bundoc/shared/errors';
import { z } from 'zod';
import { parseMark } from './parse-mark.ts';

/**
 * What stands where a project is not, or not yet, while or because it was moved (docs/formats/move-mark.md): `incoming` where it is being brought to, in the
 * place or beside the project's file; `moved` where it was. Both ends of one move have the same id. In the clear, nothing secret.
 */
const moveMarkSchema = z.strictObject({
  moving: projectIdSchema,
  format: z.literal(1),
  /** Of this move. */
  move: z.uuid(),
  state: z.enum(['incoming', 'moved']),
  since: z.iso.datetime(),
});
export type MoveMark = z.infer<typeof moveMarkSchema>;

/** What the text of a mark begins with, and that of a project file does not. */
export const MOVE_MARK_BEGINS = '{"moving":';

/** What a caller is told to wait. A project that was moved is served by others at once, but not here. */
const RETRY_AFTER_S = { incoming: 2, moved: 60 } as const;

export function formatMoveMark(mark: MoveMark): string {
  return `${JSON.stringify(moveMarkSchema.parse(mark))}\n`;
}

/** @throws AppError `project_damaged` for content that is no mark of this project. */
export function parseMoveMark(project: string, content: string): MoveMark {
  return parseMark(moveMarkSchema, (mark) => mark.moving, project, content);
}

/** What whoever asks for a marked project is told. */
export function projectElsewhere({ state }: MoveMark): AppError {
  return new AppError(state === 'moved' ? 'project_moved' : 'project_moving', {
    retryAfterS: RETRY_AFTER_S[state],
  });
}

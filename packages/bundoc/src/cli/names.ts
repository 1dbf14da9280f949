import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { CannotRun } from './errors.ts';

/** A project's id as it was typed, in its canonical form. @throws CannotRun */
export function idOf(named: string): string {
  const id = projectIdSchema.safeParse(named);
  if (!id.success) throw new CannotRun(`"${named}" is no project id`);
  return id.data;
}

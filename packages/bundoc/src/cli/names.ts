import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import { CannotRun } from './errors.ts';

/** A project's id as it was typed, in its canonical form. @throws CannotRun */
export function idOf(named: string): string {
  const id = projectIdSchema.safeParse(named);
  if (!id.success) throw new CannotRun(`"${named}" is no project id`);
  return id.data;
}

/** A collection's name as it was typed. @throws CannotRun */
export function collectionNameOf(named: string): string {
  if (!collectionNameSchema.safeParse(named).success)
    throw new CannotRun(`"${named}" is no name of a collection`);
  return named;
}

/** {@link collectionNameOf}, where one need not be named. @throws CannotRun */
export function collectionOf(named: string | undefined): string | undefined {
  return named === undefined ? undefined : collectionNameOf(named);
}

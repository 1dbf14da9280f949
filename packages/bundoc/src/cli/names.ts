import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import { CommandError } from './errors.ts';

/** A project's id as it was typed, in its canonical form. @throws CommandError */
export function idOf(named: string): string {
  const id = projectIdSchema.safeParse(named);
  if (!id.success) throw new CommandError(`"${named}" is not a project id`);
  return id.data;
}

/** A collection's name as it was typed. @throws CommandError */
export function collectionNameOf(named: string): string {
  if (!collectionNameSchema.safeParse(named).success)
    throw new CommandError(`"${named}" is not a collection name`);
  return named;
}

/** {@link collectionNameOf}, where one need not be named. @throws CommandError */
export function collectionOf(named: string | undefined): string | undefined {
  return named === undefined ? undefined : collectionNameOf(named);
}

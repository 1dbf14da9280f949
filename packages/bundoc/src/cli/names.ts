import { collectionNameSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import { CommandError } from './errors.ts';

/** Parses a project's id into its canonical form. @throws CommandError */
export function parseProjectId(named: string): string {
  const id = projectIdSchema.safeParse(named);
  if (!id.success) throw new CommandError(`"${named}" is not a project id`);
  return id.data;
}

/** Parses a collection's name. @throws CommandError */
export function parseCollectionName(named: string): string {
  if (!collectionNameSchema.safeParse(named).success)
    throw new CommandError(`"${named}" is not a collection name`);
  return named;
}

/** {@link parseCollectionName}, where the collection is optional. @throws CommandError */
export function parseOptionalCollection(named: string | undefined): string | undefined {
  return named === undefined ? undefined : parseCollectionName(named);
}

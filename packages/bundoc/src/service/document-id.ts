import { documentIdSchema } from '@bundoc/shared/contract/documents';
import { AppError } from '@bundoc/shared/errors';

/** Checks a document id that came in a body; those in a path are checked with the path. @throws `invalid_document`. */
export function documentIdOfBody(id: string): string {
  const result = documentIdSchema.safeParse(id);
  if (result.success) return result.data;
  throw new AppError('invalid_document', {
    detail: `"_id" ${result.error.issues[0]?.message ?? 'is not valid'}`,
  });
}

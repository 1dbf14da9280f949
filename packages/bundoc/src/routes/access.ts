import { collectionNameSchema, documentIdSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import { requireProject, requireScope } from '@bundoc/shared/grants';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';

const collectionPathSchema = z.object({ project: projectIdSchema, collection: collectionNameSchema });
const documentPathSchema = collectionPathSchema.extend({ id: documentIdSchema });
const noQuerySchema = z.strictObject({});

export type CollectionPath = z.infer<typeof collectionPathSchema>;
export type DocumentPath = z.infer<typeof documentPathSchema>;

/** What of a request's path was validated and authorised, until its handler takes it. */
const paths = new WeakMap<FastifyRequest, CollectionPath | DocumentPath>();

/**
 * An `onRequest` hook: who asks, may they, and is the path sound, in this order, before the body is read and before
 * anything is looked up, so that no refusal tells what exists.
 */
function guard<P extends CollectionPath>(auth: BearerAuth, scope: Scope, schema: z.ZodType<P>) {
  return async (request: FastifyRequest): Promise<void> => {
    const claims: Claims = await auth.authenticate(request);
    requireScope(claims, scope);
    const path = validate(schema, request.params, 'params');
    requireProject(claims, path.project);
    validate(noQuerySchema, request.query, 'query');
    paths.set(request, path);
  };
}

export const guardCollection = (auth: BearerAuth, scope: Scope) => guard(auth, scope, collectionPathSchema);
export const guardDocument = (auth: BearerAuth, scope: Scope) => guard(auth, scope, documentPathSchema);

/** The collection that {@link guardCollection} let pass. */
export function collectionPath(request: FastifyRequest): CollectionPath {
  return takePath(request);
}

/** The document that {@link guardDocument} let pass. */
export function documentPath(request: FastifyRequest): DocumentPath {
  const path = takePath(request);
  if (!('id' in path)) throw new Error('the route has no document guard');
  return path;
}

function takePath(request: FastifyRequest): CollectionPath | DocumentPath {
  const path = paths.get(request);
  if (path === undefined) throw new Error('the route has no guard');
  return path;
}

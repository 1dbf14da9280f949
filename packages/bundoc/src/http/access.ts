import { AppError } from '@bundoc/shared/contract/app-error';
import { collectionNameSchema, documentIdSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import { requireProject, requireScope, requireService } from '@bundoc/shared/contract/grants';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createGuard, type Guard } from '@bundoc/shared/http/guard';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';

export const projectPathSchema = z.object({ project: projectIdSchema });
export const collectionPathSchema = projectPathSchema.extend({ collection: collectionNameSchema });
export const documentPathSchema = collectionPathSchema.extend({ id: documentIdSchema });
const noQuerySchema = z.strictObject({});

export type ProjectPath = z.infer<typeof projectPathSchema>;
export type CollectionPath = z.infer<typeof collectionPathSchema>;
export type DocumentPath = z.infer<typeof documentPathSchema>;

/** The path of an authorized request; absent on routes without a project. */
const PATH = Symbol('path');

declare module 'fastify' {
  interface FastifyRequest {
    [PATH]?: ProjectPath | CollectionPath | DocumentPath | undefined;
  }
}

/** A guard that checks scopes, path, project and query, in this order. */
function guard<P extends ProjectPath>(
  auth: BearerAuth,
  scopes: Scope | readonly Scope[],
  schema: z.ZodType<P> | undefined,
  query: z.ZodType = noQuerySchema,
): Guard {
  const noQuery = query === noQuerySchema;
  const authorize = (claims: Claims, request: FastifyRequest): string | undefined => {
    if (typeof scopes === 'string') requireScope(claims, scopes);
    else for (const scope of scopes) requireScope(claims, scope);
    const path = schema && validate(schema, request.params, 'params');
    if (path !== undefined) requireProject(claims, path.project);
    // Most requests have no query, and a route without parameters has nothing to validate then.
    if (!noQuery || !isEmpty(request.query)) request.query = validate(query, request.query, 'query');
    request[PATH] = path;
    return path?.project;
  };
  // Synchronous for a known token.
  return createGuard((request) => auth.authenticate(request), authorize);
}

function isEmpty(query: unknown): boolean {
  for (const _name in query as object) return false;
  return true;
}

/** For routes that only service tokens may use. */
export const guardService = (auth: BearerAuth, scope: Scope): Guard =>
  createGuard(
    (request) => auth.authenticate(request),
    (claims) => {
      requireService(claims, scope);
      return undefined;
    },
  );
/**
 * Whether {@link guardService} would let a request pass. For public routes that tell such callers more.
 *
 * Never rejects because of the token: a request with an invalid one counts as one without.
 */
export async function isFromService(
  auth: BearerAuth,
  request: FastifyRequest,
  scope: Scope,
): Promise<boolean> {
  if (request.headers.authorization === undefined) return false;
  try {
    requireService(await auth.authenticate(request), scope);
    return true;
  } catch (error) {
    if (error instanceof AppError) return false;
    throw error;
  }
}
/** For a route without a project; its handler checks which projects the token is for. */
export const guardToken = (auth: BearerAuth, scope: Scope, query?: z.ZodType) =>
  guard(auth, scope, undefined, query);
export const guardProject = (auth: BearerAuth, scope: Scope, query?: z.ZodType) =>
  guard(auth, scope, projectPathSchema, query);
export const guardCollection = (auth: BearerAuth, scopes: Scope | readonly Scope[], query?: z.ZodType) =>
  guard(auth, scopes, collectionPathSchema, query);
export const guardDocument = (auth: BearerAuth, scopes: Scope | readonly Scope[]) =>
  guard(auth, scopes, documentPathSchema);

/** The project of a request that passed any guard; undefined on routes without a project. */
export function guardedProject(request: FastifyRequest): string | undefined {
  return request[PATH]?.project;
}

/** The project of a request that passed {@link guardProject}. */
export function projectPath(request: FastifyRequest): ProjectPath {
  const path = request[PATH];
  if (path === undefined) throw new Error('the route has no project guard');
  return path;
}

/** The collection of a request that passed {@link guardCollection}. */
export function collectionPath(request: FastifyRequest): CollectionPath {
  const path = request[PATH];
  if (path === undefined || !('collection' in path)) throw new Error('the route has no collection guard');
  return path;
}

/** The document of a request that passed {@link guardDocument}. */
export function documentPath(request: FastifyRequest): DocumentPath {
  const path = request[PATH];
  if (path === undefined || !('id' in path)) throw new Error('the route has no document guard');
  return path;
}

import { collectionNameSchema, documentIdSchema, projectIdSchema } from '@bundoc/shared/contract/documents';
import { requireProject, requireScope } from '@bundoc/shared/contract/grants';
import type { Claims, Scope } from '@bundoc/shared/contract/tokens';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { chargeRequest } from '@bundoc/shared/http/request-share';
import { validate } from '@bundoc/shared/http/validate';
import { shareKeyOf } from '@bundoc/shared/shares/share-key';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

export const projectPathSchema = z.object({ project: projectIdSchema });
export const collectionPathSchema = projectPathSchema.extend({ collection: collectionNameSchema });
export const documentPathSchema = collectionPathSchema.extend({ id: documentIdSchema });
const noQuerySchema = z.strictObject({});

export type ProjectPath = z.infer<typeof projectPathSchema>;
export type CollectionPath = z.infer<typeof collectionPathSchema>;
export type DocumentPath = z.infer<typeof documentPathSchema>;

/** What a guard found out of a request that it let pass, until its handler asks. */
interface Guarded {
  /** None of a route that is of no project. */
  readonly path: ProjectPath | CollectionPath | DocumentPath | undefined;
  readonly claims: Claims;
}

const GUARDED = Symbol('guarded');

declare module 'fastify' {
  interface FastifyRequest {
    [GUARDED]?: Guarded;
  }
}

/**
 * An `onRequest` hook: who asks, may they, and is the path sound, in this order, before the body is read and before
 * anything is looked up, so that no refusal tells what exists.
 */
function guard<P extends ProjectPath>(
  auth: BearerAuth,
  scopes: Scope | readonly Scope[],
  schema: z.ZodType<P> | undefined,
  query: z.ZodType = noQuerySchema,
) {
  const noQuery = query === noQuerySchema;
  const check = (request: FastifyRequest, claims: Claims): void => {
    if (typeof scopes === 'string') requireScope(claims, scopes);
    else for (const scope of scopes) requireScope(claims, scope);
    const path = schema && validate(schema, request.params, 'params');
    if (path !== undefined) requireProject(claims, path.project);
    // Most requests have no query, and where none is known there is nothing to validate then.
    if (!noQuery || !isEmpty(request.query)) request.query = validate(query, request.query, 'query');
    request[GUARDED] = { path, claims };
    chargeRequest(request, shareKeyOf(claims, path?.project));
  };
  // Synchronous for a token that was seen before: no promise is made then.
  return (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void => {
    try {
      const claims = auth.authenticate(request);
      if (claims instanceof Promise) {
        void claims.then((known) => check(request, known)).then(() => done(), done);
        return;
      }
      check(request, claims);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}

function isEmpty(query: unknown): boolean {
  for (const _name in query as object) return false;
  return true;
}

/** For a route without a project: its handler checks what the token is for. */
export const guardToken = (auth: BearerAuth, scope: Scope, query?: z.ZodType) =>
  guard(auth, scope, undefined, query);
export const guardProject = (auth: BearerAuth, scope: Scope, query?: z.ZodType) =>
  guard(auth, scope, projectPathSchema, query);
export const guardCollection = (auth: BearerAuth, scope: Scope, query?: z.ZodType) =>
  guard(auth, scope, collectionPathSchema, query);
export const guardDocument = (auth: BearerAuth, scopes: Scope | readonly Scope[]) =>
  guard(auth, scopes, documentPathSchema);

/** The project of a request that any guard let pass; undefined for a route of none. */
export function guardedProject(request: FastifyRequest): string | undefined {
  return request[GUARDED]?.path?.project;
}

/** The project that {@link guardProject} let pass. */
export function projectPath(request: FastifyRequest): ProjectPath {
  const { path } = guardedOf(request);
  if (path === undefined) throw new Error('the route has no project guard');
  return path;
}

/** The collection that {@link guardCollection} let pass. */
export function collectionPath(request: FastifyRequest): CollectionPath {
  const { path } = guardedOf(request);
  if (path === undefined || !('collection' in path)) throw new Error('the route has no collection guard');
  return path;
}

/** The document that {@link guardDocument} let pass. */
export function documentPath(request: FastifyRequest): DocumentPath {
  const { path } = guardedOf(request);
  if (path === undefined || !('id' in path)) throw new Error('the route has no document guard');
  return path;
}

/** The `sub` of the token of a request that a guard let pass. */
export function subjectOf(request: FastifyRequest): string {
  return guardedOf(request).claims.sub;
}

/** The token's claims of a request that a guard let pass. */
export function claimsOf(request: FastifyRequest): Claims {
  return guardedOf(request).claims;
}

function guardedOf(request: FastifyRequest): Guarded {
  const guarded = request[GUARDED];
  if (guarded === undefined) throw new Error('the route has no guard');
  return guarded;
}

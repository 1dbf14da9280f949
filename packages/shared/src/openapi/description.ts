import type { z } from 'zod';
import type { ProblemCode } from '../contract/problem.ts';
import type { Scope } from '../contract/tokens.ts';

/** One request that may be shown and tried, and what comes of it. Tests send each of them. */
export interface RouteExample {
  readonly summary?: string;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Of the body, where the route takes several; the first of them unless it says otherwise. */
  readonly contentType?: string;
  readonly status: number;
  /** An answer of that status, where it has a body that is worth showing. */
  readonly answer?: unknown;
}

/** What a route answers with one status when it does what was asked. */
export interface RouteAnswer {
  readonly description: string;
  /** Of the body; none for an answer without one. */
  readonly schema?: z.ZodType;
  /** `application/json` unless it says otherwise. */
  readonly contentType?: string;
  /** Of further content types that the client may ask for. */
  readonly also?: Readonly<Record<string, z.ZodType>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Who may call a route. `token`: any valid one; `serviceOnly`: one of `typ: service`; `grant`: what the token
 * must name besides.
 */
export type RouteAccess =
  | { readonly kind: 'public' }
  | {
      readonly kind: 'token';
      readonly scopes?: readonly Scope[];
      /** One of them at least. */
      readonly anyScope?: readonly Scope[];
      readonly serviceOnly?: boolean;
      readonly grant?: 'key' | 'project';
    };

/**
 * What the OpenAPI document says of a route. The schemas are the ones that the route validates with, so that
 * the document cannot say anything else than the edge does.
 */
export interface RouteDescription {
  /** `operationId`: one of its kind in a document. */
  readonly id: string;
  readonly tag: string;
  readonly summary: string;
  readonly description?: string;
  readonly access: RouteAccess;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly headers?: z.ZodObject;
  /** By its content type. */
  readonly body?: {
    readonly content: Readonly<Record<string, z.ZodType>>;
    readonly optional?: boolean;
  };
  readonly answers: Readonly<Record<number, RouteAnswer>>;
  /** Codes that this route refuses with, beside those that follow from what is said above. */
  readonly refusals?: readonly ProblemCode[];
  /** At least one. */
  readonly examples: Readonly<Record<string, RouteExample>>;
}

/** `internal`: a route that is no part of the API, such as a file of the documentation or the answer 405. */
type Openapi = RouteDescription | 'internal';

declare module 'fastify' {
  interface FastifyContextConfig {
    openapi?: Openapi;
  }
}

/**
 * The `config` of a described route. Not Fastify's `schema`: that would have Fastify validate and serialise,
 * which the routes do by themselves, some of them on the client's bytes.
 */
export function describe(openapi: Openapi): { readonly openapi: Openapi } {
  return { openapi };
}

/** A body of `application/json`. */
export function jsonBody(schema: z.ZodType, options: { readonly optional?: boolean } = {}) {
  return { content: { 'application/json': schema }, ...options };
}

export const PUBLIC = { kind: 'public' } as const satisfies RouteAccess;

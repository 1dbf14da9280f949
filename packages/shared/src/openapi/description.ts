import type { z } from 'zod';
import type { ProblemCode } from '../contract/problem.ts';
import type { Scope } from '../contract/tokens.ts';
import type { AnswerHeaders } from './answer-headers.ts';

/** An example request with its result. Tests send each of them. */
export interface RouteExample {
  readonly summary?: string;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Of the body, if the route accepts several; the first of them by default. */
  readonly contentType?: string;
  readonly status: number;
  /** An example body of the answer with that status. */
  readonly answer?: unknown;
}

/** A success answer of a route with one status. */
export interface RouteAnswer {
  readonly description: string;
  /** Schema of the body; absent for an answer without one. */
  readonly schema?: z.ZodType;
  /** `application/json` by default. */
  readonly contentType?: string;
  /** Schemas for further content types that the client may request. */
  readonly also?: Readonly<Record<string, z.ZodType>>;
  readonly headers?: AnswerHeaders;
}

/**
 * Who may call a route. `token`: any valid token; `serviceOnly`: only one with `typ: service`; `grant`: what
 * the token must also name.
 */
export type RouteAccess =
  | { readonly kind: 'public' }
  | {
      readonly kind: 'token';
      readonly scopes?: readonly Scope[];
      /** At least one of them. */
      readonly anyScope?: readonly Scope[];
      readonly serviceOnly?: boolean;
      readonly grant?: 'key' | 'project keys' | 'project';
    };

/**
 * The description of a route in the OpenAPI document. The route validates with the same schemas, so the
 * document cannot contradict the code.
 */
export interface RouteDescription {
  /** `operationId`: unique in a document. */
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
  /** Codes of refusals by this route, in addition to those that follow from the members above. */
  readonly refusals?: readonly ProblemCode[];
  /** At least one. */
  readonly examples: Readonly<Record<string, RouteExample>>;
}

/** `internal`: a route that is not part of the API, such as a file of the documentation or the answer 405. */
type Openapi = RouteDescription | 'internal';

declare module 'fastify' {
  interface FastifyContextConfig {
    openapi?: Openapi;
  }
}

/**
 * The `config` of a described route. It is not Fastify's `schema`, because then Fastify would validate and
 * serialize. The routes do both themselves, some of them on the client's bytes.
 */
export function describe(openapi: Openapi): { readonly openapi: Openapi } {
  return { openapi };
}

/** A body of `application/json`. */
export function jsonBody<S extends z.ZodType>(schema: S, options: { readonly optional?: boolean } = {}) {
  return { content: { 'application/json': schema }, ...options };
}

export const PUBLIC = { kind: 'public' } as const satisfies RouteAccess;

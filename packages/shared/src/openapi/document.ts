import type { z } from 'zod';
import { defined } from '../contract/defined.ts';
import { DocumentSchemas, type JsonSchema } from '../contract/json-schema.ts';
import { fieldFaultSchema, problemSchema } from '../contract/problem.ts';
import { VERSION } from '../process/version.ts';
import { headersOf } from './answer-headers.ts';
import type { RouteAnswer, RouteDescription, RouteExample } from './description.ts';
import {
  problemName,
  problemSchemaOf,
  type Response,
  refusal,
  refusalsOf,
  responsesOf,
  type ServiceRefusals,
  sharedCodes,
} from './refusals.ts';
import type { DescribedRoute } from './registered-routes.ts';

/** The description of a service as a whole. */
export interface ServiceDescription {
  readonly title: string;
  readonly description: string;
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  /** Schemas with a name in the document. Bodies and answers without one are named after their operation. */
  readonly schemas: Readonly<Record<string, z.ZodType>>;
  readonly refusals: ServiceRefusals;
  /** Headers of every route that checks a token. */
  readonly headers?: z.ZodObject;
}

const OF_EVERY_SERVICE =
  'A path that is no endpoint answers 404 `not_found`, one that exists under another method 405 `method_not_allowed` with `Allow`. ' +
  'HEAD works wherever GET does, except for the export of keys. Requests with a wrong `Host`, transfer coding or HTTP version are refused with 400, 501 and 505.';

/** An OpenAPI 3.1 document. */
export interface OpenapiDocument {
  readonly openapi: '3.1.0';
  readonly [member: string]: unknown;
}

/** The document of routes that passed {@link requireSound}. */
export function buildDocument(
  service: ServiceDescription,
  routes: readonly DescribedRoute[],
): OpenapiDocument {
  const schemas = new DocumentSchemas({
    Problem: problemSchema,
    FieldFault: fieldFaultSchema,
    ...service.schemas,
  });
  const described = routes.filter(({ method }) => method !== 'HEAD');
  for (const { description } of described) nameBodies(schemas, description);
  const refusals = routes.map(({ method, description }) => refusalsOf(method, description, service.refusals));
  const codes = new Set(refusals.flatMap((of) => [...of]));
  const paths: Record<string, Record<string, object>> = {};
  for (const { method, url, description } of routes) {
    const path = url.replace(/:([A-Za-z_]+)/g, '{$1}');
    const operation = {
      operationId: operationId(method, description),
      ...operationOf(method, description, schemas, service),
    };
    paths[path] = { ...paths[path], [method.toLowerCase()]: operation };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: service.title,
      version: VERSION,
      description: `${service.description} ${OF_EVERY_SERVICE}`,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: service.tags.filter(({ name }) => routes.some(({ description }) => description.tag === name)),
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
      schemas: {
        ...schemas.components(),
        ...Object.fromEntries([...codes].map((code) => [problemName(code), problemSchemaOf(code)])),
      },
      responses: Object.fromEntries([...sharedCodes(refusals)].map((code) => [code, refusal([code])])),
    },
  };
}

function operationId(method: string, { id }: RouteDescription): string {
  return method === 'HEAD' ? `${id}Head` : id;
}

/**
 * @throws Error when two routes have the same `operationId`, or a route has no example or a tag that is not
 * described.
 */
export function requireSound(service: ServiceDescription, routes: readonly DescribedRoute[]): void {
  const ids = new Set<string>();
  for (const { method, description } of routes) {
    const id = operationId(method, description);
    if (ids.has(id)) throw new Error(`two routes are called ${id}`);
    ids.add(id);
    if (Object.keys(description.examples).length === 0) throw new Error(`${id} has no example`);
    if (!service.tags.some(({ name }) => name === description.tag))
      throw new Error(`the tag ${description.tag} of ${id} is not described`);
  }
}

/**
 * Names the bodies and answers of an operation that have no name yet: `createDocument` has a
 * `CreateDocumentRequest`.
 */
function nameBodies(schemas: DocumentSchemas, { id, body, answers }: RouteDescription): void {
  const prefix = `${id.slice(0, 1).toUpperCase()}${id.slice(1)}`;
  const name = (schema: z.ZodType, suffix: string, at: number) =>
    schemas.name(schema, `${prefix}${suffix}${at === 0 ? '' : at + 1}`);
  Object.values(body?.content ?? {}).forEach((schema, at) => void name(schema, 'Request', at));
  const answered = Object.values(answers).flatMap(({ schema, contentType = 'application/json' }) =>
    schema !== undefined && contentType === 'application/json' ? [schema] : [],
  );
  [...new Set(answered)].forEach((schema, at) => void name(schema, 'Answer', at));
}

function operationOf(
  method: string,
  description: RouteDescription,
  schemas: DocumentSchemas,
  service: ServiceDescription,
): object {
  const { tag, summary, access, params, query, headers, body } = description;
  const { examples, refused } = sorted(description.examples);
  const token = access.kind === 'token' ? access : undefined;
  return {
    tags: [tag],
    summary,
    description: [description.description, rights(description)].filter(Boolean).join('\n\n'),
    security: token === undefined ? [] : [{ bearer: [] }],
    ...(token?.scopes === undefined ? {} : { 'x-required-scopes': token.scopes }),
    ...(token?.anyScope === undefined ? {} : { 'x-required-any-scope': token.anyScope }),
    parameters: [
      ...parametersOf('path', params, examples, schemas),
      ...parametersOf('query', query, examples, schemas),
      ...parametersOf('header', headers, examples, schemas),
      ...parametersOf('header', token && service.headers, examples, schemas),
    ],
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: body.optional !== true,
            content: Object.fromEntries(
              Object.entries(body.content).map(([type, schema], at) => [
                type,
                {
                  schema: schemas.refer(schema),
                  ...examplesOf(examples, ({ body: value, contentType }) =>
                    contentType === type || (contentType === undefined && at === 0) ? value : undefined,
                  ),
                },
              ]),
            ),
          },
        }),
    responses: responsesOf(
      answersOf(method, description, schemas),
      refusalsOf(method, description, service.refusals),
    ),
    // The examples with one name make up a request; this is its expected status.
    'x-example-status': Object.fromEntries(
      Object.entries(examples).map(([name, { status }]) => [name, status]),
    ),
    // Invalid requests are not examples of the input of an operation, so they have their own member.
    ...(Object.keys(refused).length === 0 ? {} : { 'x-refused-requests': refused }),
  };
}

/**
 * Separates the examples into valid and invalid requests. Valid requests that are refused are marked as such.
 */
function sorted(all: RouteDescription['examples']): {
  examples: RouteDescription['examples'];
  refused: RouteDescription['examples'];
} {
  const entries = Object.entries(all).map(([name, example]) => {
    const { status, summary } = example;
    if (status < 400) return [name, example] as const;
    return [
      name,
      { ...example, summary: [`Refused with ${status}`, summary].filter(Boolean).join(': ') },
    ] as const;
  });
  return {
    examples: Object.fromEntries(entries.filter(([, { status }]) => status !== 400)),
    refused: Object.fromEntries(entries.filter(([, { status }]) => status === 400)),
  };
}

/** Converts the text of a parameter to the type in its schema. */
function typedValue(text: string | undefined, { type }: JsonSchema): unknown {
  if (text === undefined) return undefined;
  if (type === 'integer' || type === 'number') return Number(text);
  return type === 'boolean' ? text === 'true' : text;
}

function rights({ access }: RouteDescription): string {
  if (access.kind === 'public') return 'No token is needed.';
  const { scopes = [], anyScope = [], serviceOnly, grant } = access;
  const needs = [
    serviceOnly === true ? 'a token of `typ: service`' : 'a token',
    ...scopes.map((scope) => `the scope \`${scope}\``),
    ...(anyScope.length === 0 ? [] : [`the scope ${anyScope.map((scope) => `\`${scope}\``).join(' or ')}`]),
    ...(grant === 'key' ? ['a glob in `keys` that matches the key'] : []),
    ...(grant === 'project keys' ? ['a glob in `keys` that covers `*-dek`'] : []),
    ...(grant === 'project' ? ['the project in `projects`'] : []),
  ];
  return `Needs ${needs.join(', ')}.`;
}

type ParameterLocation = 'path' | 'query' | 'header';
const MEMBER_OF = { path: 'params', query: 'query', header: 'headers' } as const;

function parametersOf(
  place: ParameterLocation,
  schema: z.ZodObject | undefined,
  examples: RouteDescription['examples'],
  schemas: DocumentSchemas,
): object[] {
  if (schema === undefined) return [];
  const { properties, required = [] } = schemas.define(schema) as {
    properties: Record<string, JsonSchema & { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...property }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    ...defined({ description }),
    schema: property,
    ...examplesOf(examples, (example) => typedValue(example[MEMBER_OF[place]]?.[name], property)),
  }));
}

function examplesOf(
  examples: RouteDescription['examples'],
  pick: (example: RouteExample) => unknown,
): { examples?: Record<string, object> } {
  const shown = Object.entries(examples).flatMap(([name, example]) => {
    const value = pick(example);
    const { summary } = example;
    return value === undefined ? [] : [[name, { ...defined({ summary }), value }]];
  });
  return shown.length === 0 ? {} : { examples: Object.fromEntries(shown) as Record<string, object> };
}

function answersOf(
  method: string,
  { answers, examples }: RouteDescription,
  schemas: DocumentSchemas,
): Record<string, Response> {
  return Object.fromEntries(
    Object.entries(answers).map(([status, answer]) => {
      const headers = headersOf(answer.headers);
      const of = Object.fromEntries(
        Object.entries(examples).filter(([, example]) => example.status === Number(status)),
      );
      return [
        status,
        {
          description: answer.description,
          ...defined({ headers }),
          ...(method === 'HEAD' ? {} : contentOf(answer, of, schemas)),
        },
      ];
    }),
  );
}

function contentOf(
  { schema, contentType = 'application/json', also = {} }: RouteAnswer,
  examples: RouteDescription['examples'],
  schemas: DocumentSchemas,
): object {
  if (schema === undefined) return {};
  return {
    content: {
      [contentType]: { schema: schemas.refer(schema), ...examplesOf(examples, (example) => example.answer) },
      ...Object.fromEntries(Object.entries(also).map(([type, of]) => [type, { schema: schemas.refer(of) }])),
    },
  };
}

import type { z } from 'zod';
import { problemSchema } from '../contract/problem.ts';
import type { RouteAnswer, RouteDescription, RouteExample } from './description.ts';
import { type JsonSchema, jsonSchemaOf } from './json-schema.ts';
import { headersOf, refusal, refusalResponses, refusalsOf, type ServiceRefusals } from './refusals.ts';
import type { DescribedRoute } from './registered-routes.ts';

/** What the document says of a service as a whole. */
export interface ServiceDescription {
  readonly title: string;
  readonly description: string;
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  /** Schemas that get a name in the document, wherever they are the whole of a body. */
  readonly schemas: Readonly<Record<string, z.ZodType>>;
  readonly refusals: ServiceRefusals;
}

const OF_EVERY_SERVICE =
  'A path that is no endpoint answers 404 `not_found`, one that exists under another method 405 `method_not_allowed` with `Allow`. ' +
  'HEAD works wherever GET does, except for the export of keys. Requests with a wrong `Host`, transfer coding or HTTP version are refused with 400, 501 and 505.';

/** An OpenAPI 3.1 document. */
export interface OpenapiDocument {
  readonly openapi: '3.1.0';
  readonly [member: string]: unknown;
}

/** @throws Error when two routes have the same `operationId`, or a route has no example or a tag that is not described. */
export function buildDocument(
  service: ServiceDescription,
  routes: readonly DescribedRoute[],
): OpenapiDocument {
  const schemas: Record<string, z.ZodType> = { Problem: problemSchema, ...service.schemas };
  const names = new Map(Object.entries(schemas).map(([name, schema]) => [schema, name]));
  const schemaOf: SchemaOf = (schema) => {
    const name = names.get(schema);
    return name === undefined ? jsonSchemaOf(schema) : { $ref: `#/components/schemas/${name}` };
  };
  const codes = new Set(
    routes.flatMap(({ method, description }) => [...refusalsOf(method, description, service.refusals)]),
  );
  const paths: Record<string, Record<string, object>> = {};
  const ids = new Set<string>();
  for (const { method, url, description } of routes) {
    const id = method === 'HEAD' ? `${description.id}Head` : description.id;
    if (ids.has(id)) throw new Error(`two routes are called ${id}`);
    ids.add(id);
    if (Object.keys(description.examples).length === 0) throw new Error(`${id} has no example`);
    if (!service.tags.some(({ name }) => name === description.tag))
      throw new Error(`the tag ${description.tag} of ${id} is not described`);
    const path = url.replace(/:([A-Za-z_]+)/g, '{$1}');
    const operation = {
      operationId: id,
      ...operationOf(method, description, schemaOf, service.refusals),
    };
    paths[path] = { ...paths[path], [method.toLowerCase()]: operation };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: service.title,
      version: 'v1',
      description: `${service.description} ${OF_EVERY_SERVICE}`,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: service.tags.filter(({ name }) => routes.some(({ description }) => description.tag === name)),
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
      schemas: Object.fromEntries(
        Object.entries(schemas).map(([name, schema]) => [name, jsonSchemaOf(schema)]),
      ),
      responses: Object.fromEntries([...codes].map((code) => [code, refusal([code])])),
    },
  };
}

type SchemaOf = (schema: z.ZodType) => JsonSchema;

function operationOf(
  method: string,
  description: RouteDescription,
  schemaOf: SchemaOf,
  service: ServiceRefusals,
): object {
  const { tag, summary, access, params, query, headers, body, examples } = description;
  const token = access.kind === 'token' ? access : undefined;
  return {
    tags: [tag],
    summary,
    description: [description.description, rights(description)].filter(Boolean).join('\n\n'),
    security: token === undefined ? [] : [{ bearer: [] }],
    ...(token?.scopes === undefined ? {} : { 'x-required-scopes': token.scopes }),
    parameters: [
      ...parametersOf('path', params, examples),
      ...parametersOf('query', query, examples),
      ...parametersOf('header', headers, examples),
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
                  schema: schemaOf(schema),
                  ...examplesOf(examples, ({ body: value, contentType }) =>
                    contentType === type || (contentType === undefined && at === 0) ? value : undefined,
                  ),
                },
              ]),
            ),
          },
        }),
    responses: {
      ...answersOf(method, description, schemaOf),
      ...refusalResponses(refusalsOf(method, description, service)),
    },
    // A request is put together from the examples of one name; this says what comes of it.
    'x-example-status': Object.fromEntries(
      Object.entries(examples).map(([name, { status }]) => [name, status]),
    ),
  };
}

function rights({ access }: RouteDescription): string {
  if (access.kind === 'public') return 'No token is needed.';
  const { scopes = [], serviceOnly, grant } = access;
  const needs = [
    serviceOnly === true ? 'a token of `typ: service`' : 'a token',
    ...scopes.map((scope) => `the scope \`${scope}\``),
    ...(grant === 'key' ? ['a glob in `keys` that matches the key'] : []),
    ...(grant === 'project' ? ['the project in `projects`'] : []),
  ];
  return `Needs ${needs.join(', ')}.`;
}

type Place = 'path' | 'query' | 'header';
const MEMBER_OF = { path: 'params', query: 'query', header: 'headers' } as const;

function parametersOf(
  place: Place,
  schema: z.ZodObject | undefined,
  examples: RouteDescription['examples'],
): object[] {
  if (schema === undefined) return [];
  const { properties, required = [] } = jsonSchemaOf(schema) as {
    properties: Record<string, JsonSchema & { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...property }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: property,
    ...examplesOf(examples, (example) => example[MEMBER_OF[place]]?.[name]),
  }));
}

function examplesOf(
  examples: RouteDescription['examples'],
  pick: (example: RouteExample) => unknown,
): { examples?: Record<string, object> } {
  const shown = Object.entries(examples).flatMap(([name, example]) => {
    const value = pick(example);
    const { summary } = example;
    return value === undefined ? [] : [[name, { ...(summary === undefined ? {} : { summary }), value }]];
  });
  return shown.length === 0 ? {} : { examples: Object.fromEntries(shown) as Record<string, object> };
}

function answersOf(method: string, { answers, examples }: RouteDescription, schemaOf: SchemaOf): object {
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
          ...(headers === undefined ? {} : { headers }),
          ...(method === 'HEAD' ? {} : contentOf(answer, of, schemaOf)),
        },
      ];
    }),
  );
}

function contentOf(
  { schema, contentType = 'application/json', also = {} }: RouteAnswer,
  examples: RouteDescription['examples'],
  schemaOf: SchemaOf,
): object {
  if (schema === undefined) return {};
  return {
    content: {
      [contentType]: { schema: schemaOf(schema), ...examplesOf(examples, (example) => example.answer) },
      ...Object.fromEntries(Object.entries(also).map(([type, of]) => [type, { schema: schemaOf(of) }])),
    },
  };
}

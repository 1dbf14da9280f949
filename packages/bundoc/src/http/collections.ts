import { AppError } from '@bundoc/shared/contract/app-error';
import {
  collectionDefinitionSchema,
  DEFINITION_BYTES_MAX,
  schemaCheckRequestSchema,
} from '@bundoc/shared/contract/collections';
import { defined } from '@bundoc/shared/contract/defined';
import { READ } from '@bundoc/shared/http/answer-bytes';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { requireExactNumbers } from '../collections/exact-numbers.ts';
import { etagOf, isNotModified, writePrecondition } from '../documents/precondition-headers.ts';
import type { CollectionInfo, Collections } from '../service/collections.ts';
import { faultOfPath } from '../values/path.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { collectionPath, guardCollection, guardProject, projectPath } from './access.ts';
import {
  DEFINITION,
  DROP,
  dropQuerySchema,
  LIST,
  READING,
  REMOVAL,
  SCHEMA_CHECK,
} from './collections.openapi.ts';
import { namingRevision } from './failed-precondition.ts';
import { commitOptions } from './idempotency.ts';
import { requestWork } from './request-work.ts';

/** The request without a schema. */
const CURSOR_BYTES_MAX = 2_048;
const COLLECTIONS_PATH = '/v1/projects/:project/collections';
const COLLECTION_PATH = `${COLLECTIONS_PATH}/:collection`;

/** Collections and their definitions (docs/collections.md). */
export function registerCollections(
  app: FastifyInstance,
  collections: Collections,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  app.get(
    COLLECTIONS_PATH,
    { onRequest: guardProject(auth, 'docs:read'), config: LIST },
    async (request, reply) => {
      const { project } = projectPath(request);
      const all = await collections.list(project);
      reply.header('cache-control', 'private, no-cache');
      return {
        collections: all.map(({ isDefined, ...summary }) => ({ ...summary, defined: isDefined })),
      };
    },
  );

  app.get(
    COLLECTION_PATH,
    { onRequest: guardCollection(auth, 'docs:read'), config: READING },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const info = await collections.get(project, collection);
      reply.header('cache-control', 'private, no-cache');
      if (info.rev !== undefined) {
        reply.header('etag', etagOf(info.rev));
        if (isNotModified(request.headers, info.rev)) return reply.code(304).send();
      }
      return answerOf(info);
    },
  );

  app.put(
    COLLECTION_PATH,
    {
      onRequest: guardCollection(auth, 'docs:admin'),
      bodyLimit: DEFINITION_BYTES_MAX,
      config: { ...HOLDS_MANY, ...DEFINITION },
    },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const precondition = writePrecondition(request.headers);
      using work = requestWork(scheduler, 'definition', request, reply);
      const definition = readDefinition(request);
      const options = await commitOptions(request, work);
      const { created, info, existing } = await collections
        .define(project, collection, definition, precondition, options)
        .catch(namingRevision(request.headers, 'definition'));
      reply.code(created ? 201 : 200).header('etag', etagOf(String(info.rev)));
      return { ...answerOf(info), existing };
    },
  );

  registerDrop(app, collections, auth, scheduler);

  app.delete(
    `${COLLECTION_PATH}/definition`,
    { onRequest: guardCollection(auth, 'docs:admin'), config: REMOVAL },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const precondition = writePrecondition(request.headers);
      using work = requestWork(scheduler, 'definition', request);
      const options = await commitOptions(request, work);
      await collections
        .undefine(project, collection, precondition, options)
        .catch(namingRevision(request.headers, 'definition'));
      return reply.code(204).send();
    },
  );

  registerSchemaCheck(app, collections, auth, scheduler);
}

function registerDrop(
  app: FastifyInstance,
  collections: Collections,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  app.delete(
    `${COLLECTION_PATH}/documents`,
    {
      onRequest: guardCollection(auth, 'docs:admin', dropQuerySchema),
      config: { ...HOLDS_MANY, ...DROP },
    },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const { confirm } = request.query as z.infer<typeof dropQuerySchema>;
      // An irreversible action needs the name twice.
      if (confirm !== collection)
        throw new AppError('invalid_request', {
          errors: [{ path: 'query.confirm', message: "must be the collection's name" }],
        });
      using work = requestWork(scheduler, 'batch', request, reply);
      const { removed, more, left } = await collections.drop(project, collection, work);
      return { deleted: removed, more, ...(left > 0 ? { unreadable: left } : {}) };
    },
  );
}

function registerSchemaCheck(
  app: FastifyInstance,
  collections: Collections,
  auth: BearerAuth,
  scheduler: Scheduler,
): void {
  app.post(
    `${COLLECTION_PATH}/schema-check`,
    {
      onRequest: guardCollection(auth, ['docs:read', 'docs:admin']),
      bodyLimit: DEFINITION_BYTES_MAX + CURSOR_BYTES_MAX,
      config: { ...READ, ...HOLDS_MANY, ...SCHEMA_CHECK },
    },
    async (request, reply) => {
      const body = readBody(request, schemaCheckRequestSchema);
      using work = requestWork(scheduler, 'query', request, reply);
      const { failures, unreadable, next, ...counts } = await collections.checkSchema({
        ...collectionPath(request),
        ...body,
        cursor: body.cursor,
        work,
      });
      reply.header('cache-control', 'private, no-cache');
      return {
        ...counts,
        failures,
        ...(unreadable.length === 0 ? {} : { unreadable }),
        ...defined({ next_cursor: next }),
      };
    },
  );
}

/**
 * Parses a body that may have a schema in its member `schema`.
 *
 * @throws AppError `invalid_json`, `invalid_request`.
 */
function readBody<S extends z.ZodType>(request: FastifyRequest, schema: S): z.infer<S> {
  if (!(request.body instanceof Buffer))
    throw new AppError('unsupported_media_type', { detail: 'a body of application/json is required' });
  const { value, text } = parseJsonObject(request.body);
  const body = validate(schema, value, 'body');
  requireExactNumbers(text);
  return body;
}

/** @throws AppError `invalid_json`, `invalid_request`. */
function readDefinition(request: FastifyRequest) {
  const definition = readBody(request, collectionDefinitionSchema);
  const named = definition.indexes.map((index) => ({ ...index, name: index.name ?? index.fields.join('+') }));
  const errors = [
    ...named.flatMap(({ fields }, at) =>
      fields.map((field, part) => faultAt(`indexes.${at}.fields.${part}`, field)),
    ),
    ...named.map(({ name }, at) =>
      named.findIndex((other) => other.name === name) === at
        ? undefined
        : { path: `body.indexes.${at}.name`, message: 'must not be another index’s' },
    ),
    ...named.map(({ fields }, at) =>
      new Set(fields).size === fields.length
        ? undefined
        : { path: `body.indexes.${at}.fields`, message: 'must not name a field twice' },
    ),
    definition.ttl === undefined ? undefined : faultAt('ttl.field', definition.ttl.field),
  ].filter((fault) => fault !== undefined);
  if (errors.length > 0) throw new AppError('invalid_request', { errors: errors.slice(0, 20) });
  return { ...definition, indexes: named };
}

function faultAt(place: string, field: string) {
  const message = faultOfPath(field);
  return message === undefined ? undefined : { path: `body.${place}`, message };
}

function answerOf({ name, documents, bytes, definition, indexes }: CollectionInfo) {
  const { indexes: defined = [], ...rest } = definition ?? {};
  const statuses = defined.map((index) => {
    const status = indexes.find((one) => one.name === index.name) ?? {
      state: 'building' as const,
      indexed: 0,
      total: documents,
    };
    return { ...index, ...status };
  });
  return { name, documents, bytes, ...rest, indexes: statuses };
}

import { collectionDefinitionSchema, DEFINITION_BYTES_MAX } from '@bundoc/shared/contract/collections';
import { AppError } from '@bundoc/shared/errors';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { faultOfPath } from '../query/path.ts';
import type { CollectionInfo, Collections } from '../service/collections.ts';
import { collectionPath, guardCollection, guardProject, projectPath } from './access.ts';
import { etagOf, isNotModified, writePrecondition } from './preconditions.ts';

const COLLECTIONS_PATH = '/v1/projects/:project/collections';
const COLLECTION_PATH = `${COLLECTIONS_PATH}/:collection`;

/** Collections and their definitions (docs/collections.md). */
export function registerCollections(app: FastifyInstance, collections: Collections, auth: BearerAuth): void {
  app.get(COLLECTIONS_PATH, { onRequest: guardProject(auth, 'docs:read') }, async (request, reply) => {
    const { project } = projectPath(request);
    const all = await collections.list(project);
    reply.header('cache-control', 'private, no-cache');
    return {
      collections: all.map(({ name, documents, bytes, rev }) => ({
        name,
        documents,
        bytes,
        defined: rev !== undefined,
      })),
    };
  });

  app.get(COLLECTION_PATH, { onRequest: guardCollection(auth, 'docs:read') }, async (request, reply) => {
    const { project, collection } = collectionPath(request);
    const info = await collections.get(project, collection);
    reply.header('cache-control', 'private, no-cache');
    if (info.rev !== undefined) {
      reply.header('etag', etagOf(info.rev));
      if (isNotModified(request.headers, info.rev)) return reply.code(304).send();
    }
    return answerOf(info);
  });

  app.put(
    COLLECTION_PATH,
    { onRequest: guardCollection(auth, 'docs:admin'), bodyLimit: DEFINITION_BYTES_MAX },
    async (request, reply) => {
      const { project, collection } = collectionPath(request);
      const precondition = writePrecondition(request.headers);
      const definition = readDefinition(request);
      const { created, info, existing } = await collections.define(
        project,
        collection,
        definition,
        precondition,
      );
      reply.code(created ? 201 : 200).header('etag', etagOf(String(info.rev)));
      return { ...answerOf(info), existing };
    },
  );

  app.delete(COLLECTION_PATH, { onRequest: guardCollection(auth, 'docs:admin') }, async (request, reply) => {
    const { project, collection } = collectionPath(request);
    await collections.undefine(project, collection, writePrecondition(request.headers));
    return reply.code(204).send();
  });
}

/** @throws AppError `invalid_json`, `invalid_request`. */
function readDefinition(request: FastifyRequest) {
  if (!(request.body instanceof Buffer))
    throw new AppError('unsupported_media_type', { detail: 'a body of application/json is required' });
  const { value } = parseJsonObject(request.body);
  const definition = validate(collectionDefinitionSchema, value, 'body');
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

function answerOf({ name, documents, bytes, definition }: CollectionInfo) {
  return { name, documents, bytes, ...(definition ?? { indexes: [] }) };
}

import { AppError } from '@bundoc/shared/contract/app-error';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { HOLDS_MANY } from '@bundoc/shared/http/gate-door';
import { essenceOf } from '@bundoc/shared/http/media-type';
import { readUtf8 } from '@bundoc/shared/http/server';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { PATCH_TYPES, type PatchKind } from '../documents/patch/read-patch.ts';
import { etagOf, writePrecondition } from '../documents/precondition-headers.ts';
import type { Documents } from '../service/documents.ts';
import type { Scheduler } from '../work/scheduler.ts';
import { documentPath, guardDocument } from './access.ts';
import { DOCUMENT_PATH } from './documents.ts';
import { namingRevision } from './failed-precondition.ts';
import { commitOptions } from './idempotency.ts';
import { DESCRIPTION } from './patch.openapi.ts';
import { requestWork } from './request-work.ts';

const ACCEPT_PATCH = Object.keys(PATCH_TYPES).join(', ');

/**
 * `PATCH` of a document (RFC 5789). It also needs `docs:read`: whether a patch applies reveals the document's
 * content.
 *
 * A separate plugin, so that no other endpoint accepts bodies of these types.
 */
export async function registerPatch(
  app: FastifyInstance,
  documents: Documents,
  auth: BearerAuth,
  scheduler: Scheduler,
): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser(Object.keys(PATCH_TYPES), readUtf8);
    scope.addHook('onRequest', (_request, reply, done) => {
      reply.header('accept-patch', ACCEPT_PATCH);
      done();
    });
    scope.patch(
      DOCUMENT_PATH,
      {
        onRequest: guardDocument(auth, ['docs:write', 'docs:read']),
        config: { ...HOLDS_MANY, ...DESCRIPTION },
      },
      async (request, reply) => {
        const path = documentPath(request);
        const precondition = writePrecondition(request.headers);
        using work = requestWork(scheduler, 'patch', request, reply);
        const patch = { kind: kindOf(request), bytes: request.body as Buffer };
        const options = await commitOptions(request, work);
        const metadata = await documents
          .patch(path.project, path, patch, precondition, options)
          .catch(namingRevision(request.headers));
        reply.header('etag', etagOf(metadata._rev));
        return metadata;
      },
    );
  });
}

function kindOf(request: FastifyRequest): PatchKind {
  const type = essenceOf(request.headers['content-type']);
  if (request.body instanceof Buffer && type !== undefined && Object.hasOwn(PATCH_TYPES, type))
    return PATCH_TYPES[type as keyof typeof PATCH_TYPES];
  throw new AppError('unsupported_media_type', { detail: `a body of ${ACCEPT_PATCH} is required` });
}

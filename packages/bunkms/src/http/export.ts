import { exportedKeySchema, keyVersionParamSchema } from '@bundoc/shared/contract/keys';
import { RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { generationSchema, storageIdSchema } from '@bundoc/shared/contract/storages';
import { encodeExportedKey } from '@bundoc/shared/crypto/exported-key';
import { answerByHand, WITHOUT_PLACE } from '@bundoc/shared/http/gate-door';
import { validate } from '@bundoc/shared/http/validate';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { exportKey } from '../keys/export-key.ts';
import { callerOf, type Guards, subjectOf } from './guard.ts';
import { OUTSIDE_REFUSALS } from './key-outside.openapi.ts';
import { EXAMPLE_STORAGE, HOLDER_REFUSALS, KEY_REFUSALS, keyParamsSchema } from './key-requests.ts';
import type { ServiceGate } from './services.ts';

const exportQuery = z
  .strictObject({
    version: keyVersionParamSchema.optional(),
    storage: storageIdSchema
      .optional()
      .describe('The requesting storage: only keys that it holds are released'),
    generation: generationSchema.optional().describe('The current generation of that storage'),
    purpose: z
      .enum(['drill'])
      .optional()
      .describe('Why no storage asks, for the audit record: a drill opens a copy'),
  })
  .refine(
    ({ storage, generation }) => (storage === undefined) === (generation === undefined),
    'storage and generation must be given together',
  )
  .refine(
    ({ storage, purpose }) => storage === undefined || purpose === undefined,
    'a storage that asks has no purpose',
  );

/** The release of keys. Registered on the internal listener only. */
export function registerExportRoute(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/export/:name',
    {
      // HEAD would record the release of a key that nobody receives.
      exposeHeadRoute: false,
      onRequest: guards.serviceForKeyInPath('kms:export_key'),
      config: {
        ...WITHOUT_PLACE,
        ...describe({
          id: 'exportKey',
          tag: 'export',
          summary: 'Release a raw key',
          description:
            'Writes a durable CRITICAL audit record first, whose receipt is `audit`. The key may be kept for `lease.ttl_ms`. Without `storage`, the holder of the key does not matter.',
          access: { kind: 'token', scopes: ['kms:export_key'], serviceOnly: true, grant: 'key' },
          params: keyParamsSchema,
          query: exportQuery,
          answers: {
            200: {
              description: 'The key',
              schema: exportedKeySchema,
              headers: { 'bunkms-receipt': 'A receipt of the audit chain: send it with later requests' },
            },
          },
          refusals: [
            ...KEY_REFUSALS,
            ...OUTSIDE_REFUSALS,
            'key_not_exportable',
            'key_disabled',
            'key_pending_deletion',
            'key_version_destroyed',
            ...HOLDER_REFUSALS,
            'key_deletion_intended',
            'rate_limited',
            'audit_unavailable',
          ],
          examples: {
            current: { params: { name: 'project-a-dek' }, status: 200 },
            version: { params: { name: 'project-a-dek' }, query: { version: '1' }, status: 200 },
            another: { params: { name: 'none-dek' }, status: 404 },
            superseded: {
              summary: 'Refused, because the storage is unknown',
              params: { name: 'project-a-dek' },
              query: { storage: EXAMPLE_STORAGE.storage, generation: EXAMPLE_STORAGE.generation },
              status: 409,
            },
          },
        }),
      },
    },
    async (request, reply) => {
      const { version, storage, generation, purpose } = validate(exportQuery, request.query, 'query');
      const acting = storage === undefined || generation === undefined ? undefined : { storage, generation };
      const { name } = validate(keyParamsSchema, request.params, 'params');
      const { keys, limits, receipts } = services();
      limits.takeExport(subjectOf(request), name);
      const beforeOutside = () => limits.takeOutsideExport(subjectOf(request), name);
      const asked = { name, version, acting, purpose, beforeOutside };
      const { dek, facts } = await exportKey(keys, asked, callerOf(request));
      let body: Buffer;
      try {
        body = encodeExportedKey(facts, dek);
      } finally {
        dek.fill(0);
      }
      const response = reply.raw;
      // The client has left before its record was durable, and `close` is over.
      if (response.destroyed) {
        body.fill(0);
        return answerByHand(request, reply);
      }
      // Emitted when the last byte is passed to the system, or the connection closes before that.
      response.once('close', () => body.fill(0));
      reply.header(RECEIPT_HEADER, receipts.make(facts.audit));
      return reply.type('application/json; charset=utf-8').send(body);
    },
  );
}

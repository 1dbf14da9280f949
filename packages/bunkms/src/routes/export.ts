import { encodeExportedKey } from '@bundoc/shared/contract/exported-key';
import { keyVersionParamSchema } from '@bundoc/shared/contract/keys';
import { validate } from '@bundoc/shared/http/validate';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callerOf, familyOf, type Guards } from '../http/guard.ts';
import { exportKey } from '../service/export-key.ts';
import type { ServiceGate } from '../services.ts';
import { keyParamsSchema } from './keys.ts';

const exportQuery = z.strictObject({ version: keyVersionParamSchema.optional() });

/** The release of keys. Registered on the internal listener only. */
export function registerExportRoute(app: FastifyInstance, guards: Guards, services: ServiceGate): void {
  app.get(
    '/v1/export/:name',
    { onRequest: guards.serviceForKeyInPath('kms:export_key') },
    async (request, reply) => {
      const { version } = validate(exportQuery, request.query, 'query');
      const { name } = validate(keyParamsSchema, request.params, 'params');
      const { keys, limits } = services();
      limits.takeExport(familyOf(request), name);
      const { dek, facts } = await exportKey(keys, { name, version }, callerOf(request));
      let body: Buffer;
      try {
        body = encodeExportedKey(facts, dek);
      } finally {
        dek.fill(0);
      }
      // Comes when the last byte is handed to the system, and when the connection ends before that.
      reply.raw.once('close', () => body.fill(0));
      return reply.type('application/json; charset=utf-8').send(body);
    },
  );
}

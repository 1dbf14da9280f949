import { type DataKeyAnswer, dataKeyAnswerSchema, dataKeySchema } from '@bundoc/shared/contract/crypto';
import { READ } from '@bundoc/shared/http/answer-bytes';
import { jsonBody } from '@bundoc/shared/openapi/description';
import { makeDataKey } from '../encryption/data-key.ts';
import type { Guards } from './guard.ts';
import { OUTSIDE_REFUSALS } from './key-outside.openapi.ts';
import { KEY_REFUSALS, keyAccess, keyParamsSchema } from './key-requests.ts';
import type { AddRoute, JsonRoute } from './route.ts';

const DATA_KEY = {
  id: 'makeDataKey',
  tag: 'encryption',
  summary: 'Make a data key, in the clear and encrypted under a key',
  description:
    'For envelope encryption elsewhere: encrypt with `plaintext_b64`, then forget it, and store `ciphertext_b64`. `decrypt` opens that with the same AAD. BunKMS keeps neither.',
  access: keyAccess('kms:encrypt'),
  params: keyParamsSchema,
  body: jsonBody(dataKeySchema, { optional: true }),
  answers: { 200: { description: 'The data key', schema: dataKeyAnswerSchema } },
  refusals: [
    ...KEY_REFUSALS,
    ...OUTSIDE_REFUSALS,
    'key_disabled',
    'key_pending_deletion',
    'rate_limited',
    'audit_unavailable',
  ],
  examples: {
    aes256: {
      params: { name: 'project-a-dek' },
      body: { bytes: 32, aad_b64: 'b3JkZXIgNDI=' },
      status: 200,
      answer: {
        plaintext_b64: Buffer.alloc(32, 1).toString('base64'),
        ciphertext_b64: Buffer.alloc(93, 1).toString('base64'),
        version: 1,
      },
    },
    byDefault: { params: { name: 'project-a-dek' }, body: {}, status: 200 },
  },
} satisfies JsonRoute;

/** Data keys for envelope encryption. On both listeners, because they release no key of BunKMS. */
export function registerDataKeyRoute(add: AddRoute, guards: Guards): void {
  add(
    'POST /v1/data-key/:name',
    guards.keyInPath('kms:encrypt'),
    DATA_KEY,
    async ({ params: { name }, body, services: { crypto, limits }, caller, subject }) => {
      limits.takeCrypto(subject, name, 1);
      const wanted = { bytes: body.bytes, aad: Buffer.from(body.aad_b64 ?? '', 'base64') };
      const { plaintext, ciphertext, version } = await makeDataKey(crypto, name, wanted, caller);
      const answer: DataKeyAnswer = {
        plaintext_b64: plaintext.toString('base64'),
        ciphertext_b64: ciphertext.toString('base64'),
        version,
      };
      plaintext.fill(0);
      return answer;
    },
    READ,
  );
}

import { auditPageSchema, auditVerificationSchema } from '@bundoc/shared/contract/audit';
import { kekStatusSchema } from '@bundoc/shared/contract/kek';
import {
  attachedKeySchema,
  destroyReceiptSchema,
  exportedKeySchema,
  keyDetailSchema,
  keyInfoSchema,
  keyPageSchema,
} from '@bundoc/shared/contract/keys';
import { RECEIPT_HEADER, RECEIPTS_MAX } from '@bundoc/shared/contract/kms-receipt';
import {
  deletionIntentSchema,
  deletionPageSchema,
  storageInfoSchema,
} from '@bundoc/shared/contract/storages';
import { issuedTokenSchema, tokenPageSchema } from '@bundoc/shared/contract/tokens';
import type { ServiceDescription } from '@bundoc/shared/openapi/document';
import { z } from 'zod';

const receiptHeaders = z.object({
  [RECEIPT_HEADER]: z
    .string()
    .optional()
    .describe(
      `Receipts of earlier answers, at most ${RECEIPTS_MAX}, separated by commas. Refused when this service has not made one of them; with \`sealed\` when its audit chain lacks the record of one`,
    ),
});

/** The OpenAPI document of a listener, without its routes, which describe themselves. */
export function bunkmsApi(listener: 'api' | 'internal'): ServiceDescription {
  return {
    title: listener === 'api' ? 'BunKMS' : 'BunKMS, internal listener',
    description:
      'Keeps one AES-256 key for each project, wrapped by a key that never leaves the service, and records every use of the keys.',
    tags: [
      { name: 'keys', description: 'Keys, their versions and states' },
      { name: 'storages', description: 'Storages of Bundoc, and which keys they hold' },
      { name: 'encryption', description: 'Encryption under keys that never leave the service' },
      { name: 'export', description: 'The release of keys to services' },
      { name: 'events', description: 'Events of keys and tokens for services' },
      { name: 'kek', description: 'The key encryption keys' },
      { name: 'tokens', description: 'Bearer tokens of both services' },
      { name: 'audit', description: 'The audit chain' },
      { name: 'service', description: 'About the process' },
    ],
    schemas: {
      Key: keyInfoSchema,
      KeyDetail: keyDetailSchema,
      AttachedKey: attachedKeySchema,
      KeyPage: keyPageSchema,
      DestroyReceipt: destroyReceiptSchema,
      Storage: storageInfoSchema,
      DeletionIntent: deletionIntentSchema,
      DeletionPage: deletionPageSchema,
      KekStatus: kekStatusSchema,
      IssuedToken: issuedTokenSchema,
      TokenPage: tokenPageSchema,
      AuditPage: auditPageSchema,
      AuditVerification: auditVerificationSchema,
      ...(listener === 'internal' ? { ExportedKey: exportedKeySchema } : {}),
    },
    refusals: { always: [], authenticated: ['receipt_invalid', 'sealed', 'storage_unavailable'] },
    headers: receiptHeaders,
  };
}

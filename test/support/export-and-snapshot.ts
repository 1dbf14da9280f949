/**
 * A process that runs both services and exports a key. It writes a heap snapshot, and files with the texts to
 * search for: the key, and a control string that the heap must contain.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeHeapSnapshot } from 'node:v8';
import { KmsClient } from '@bundoc/bundoc/kms/client';
import { KEY_TEXT_BYTES, writeKeyText } from '@bundoc/shared/crypto/key-text';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { call, Installation } from './installation.ts';

const folder = String(process.argv[2]);

await using installation = await Installation.start({ isOnFiles: true });
const token = await installation.client(['project-a']);
const path = '/v1/projects/project-a/collections/notes/documents/first';
const stored = await call(installation.url, path, { method: 'PUT', token, body: '{}' });
if (stored.status !== 201) throw new Error(stored.text);

const serviceToken = installation.read('kms-token').toString().trim();
const kms = new KmsClient({
  url: installation.kms.internalUrl,
  token: () => serviceToken,
  clock: systemClock,
  logger: createLogger({ service: 'bundoc', level: 'silent' }),
});
const { dek } = await kms.exportKey('project-a-dek');
await kms.close();
const text = Buffer.alloc(KEY_TEXT_BYTES);
writeKeyText(dek.export(), text);
writeFileSync(join(folder, 'key'), text);

const control = `{"key_material_b64":"${randomBytes(32).toString('base64')}","algorithm":"AES-256-GCM"}`;
writeFileSync(join(folder, 'control'), control.slice(21, 65));
writeHeapSnapshot(join(folder, 'heap.heapsnapshot'));
// Keeps the control string alive until here.
if (control === '') throw new Error('never');

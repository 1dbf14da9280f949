import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { issueCertificate, makeAuthority } from '@bundoc/bunkms/cli/authority';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { expect, it, onTestFinished, vi } from 'vitest';
import { errorOf } from '../packages/shared/test/object-storage-conformance.ts';
import { REGION, S3Server } from '../packages/shared/test/s3-server.ts';

const DAY_MS = 86_400_000;

it('an object storage trusts the authority that it names, a new one at once, and no certificate without', async () => {
  const days = { notBeforeMs: Date.now() - DAY_MS, notAfterMs: Date.now() + DAY_MS };
  const [ours, another] = await Promise.all([makeAuthority(days), makeAuthority(days)]);
  const folder = mkdtempSync(join(tmpdir(), 'object-storage-tls-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const caFile = join(folder, 'ca.pem');
  writeFileSync(caFile, another.cert);
  await using server = await S3Server.start(
    () => ({ status: 200, body: 'sealed' }),
    await issueCertificate(ours, ['127.0.0.1'], days),
  );
  const { accessKeyId, secretAccessKey, sessionToken } = server.newCredential();
  vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
  const open = (more: string) =>
    openObjectStorage(`s3://bucket?endpoint=${server.url}&region=${REGION}${more}`, {
      variable: 'BUNDOC_ARCHIVE',
      environment: {
        AWS_ACCESS_KEY_ID: accessKeyId,
        AWS_SECRET_ACCESS_KEY: secretAccessKey,
        AWS_SESSION_TOKEN: sessionToken,
      },
      clock: systemClock,
      bounds: { attempts: 1 },
    });
  await using storage = open(`&ca=${caFile}`);
  await using without = open('');
  for (const one of [storage, without])
    expect((await errorOf(one.get('one', { maxBytes: 6 }))).message).toContain('with ca');
  writeFileSync(caFile, `${ours.cert}\n`);
  expect(await storage.get('one', { maxBytes: 6 })).toEqual(Buffer.from('sealed'));
  writeFileSync(caFile, 'no certificate');
  const failed = await errorOf(storage.get('one', { maxBytes: 6 }));
  expect([failed.kind, failed.message]).toEqual([
    'wrong',
    expect.stringMatching(/ca: the file \S+ holds no certificate/),
  ]);
  expect(server.requests).toHaveLength(1);
});

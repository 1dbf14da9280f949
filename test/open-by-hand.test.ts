import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/** The ten lines of Python in docs/security/open-by-hand.md. */
const script = /```python\n([\s\S]*?)```/.exec(
  readFileSync(new URL('../docs/security/open-by-hand.md', import.meta.url), 'utf8'),
)?.[1];

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start();
});
afterAll(() => installation[Symbol.asyncDispose]());

describe('a document file', needs('python'), () => {
  it('can be opened by hand, with an exported key and the Python of docs/security/open-by-hand.md', async () => {
    const token = await installation.client();
    const path = '/v1/projects/by-hand/collections/notes/documents/a';
    await call(installation.url, path, { method: 'PUT', token, body: '{"n":1.10,"text":"grüße"}' });
    const expected = (await call(installation.url, path, { token })).text;
    const service = installation.read('kms-token').toString().trim();
    const exported = await call(installation.kms.internalUrl, '/v1/export/by-hand-dek', { token: service });
    const [document] = await installation.stored.sealedDocuments('by-hand', 1);
    if (document === undefined) throw new Error('a document was expected');
    const file = join(installation.folder, document.name);
    writeFileSync(file, document.sealed);
    const opened = execFileSync(String(pathOf('python')), ['-c', String(script), file], {
      input: exported.text,
    });
    expect(opened.toString()).toBe(expected);
    const renamed = spawnSync(String(pathOf('python')), ['-c', String(script), installation.tokenFile], {
      input: exported.text,
    });
    expect(renamed.status).not.toBe(0);
  });
});

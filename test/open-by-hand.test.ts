import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Customer } from '../packages/bunkms/test/support/customer.ts';
import { call, Installation } from './support/installation.ts';

const page = readFileSync(new URL('../docs/security/open-by-hand.md', import.meta.url), 'utf8');
/** The Python of the page: it opens a document, and a wrapped key. */
const [open = '', unwrap = ''] = [...page.matchAll(/```python\n([\s\S]*?)```/g)].map(([, code]) => code);
const python = (script: string, args: readonly string[], input: string) =>
  spawnSync(String(pathOf('python')), ['-c', script, ...args], { input, encoding: 'utf8' });

let customer: Customer;
let installation: Installation;
let token: string;
beforeAll(async () => {
  customer = await Customer.start();
  installation = await Installation.start({ kmsEnvironment: { BUNKMS_OUTSIDE_KEYS_FILE: customer.file } });
  token = await installation.client();
});
afterAll(async () => {
  await installation?.[Symbol.asyncDispose]();
  await customer?.[Symbol.asyncDispose]();
});

/** Writes a document. @returns what Bundoc reads of it. */
async function put(project: string, id: string): Promise<string> {
  const path = `/v1/projects/${project}/collections/notes/documents/${id}`;
  await call(installation.url, path, { method: 'PUT', token, body: '{"n":1.10,"text":"grüße"}' });
  return (await call(installation.url, path, { token })).text;
}

/** The sealed documents of a project, as files. */
async function documents(project: string, count: number, folder = 'sealed'): Promise<string[]> {
  mkdirSync(join(installation.folder, folder), { recursive: true });
  return (await installation.stored.sealedDocuments(project, count)).map(({ name, sealed }) => {
    const file = join(installation.folder, folder, name);
    writeFileSync(file, sealed);
    return file;
  });
}

describe('by hand, with the Python of docs/security/open-by-hand.md', needs('python'), () => {
  it('a document file opens with an exported key', async () => {
    const expected = await put('by-hand', 'a');
    const service = installation.read('kms-token').toString().trim();
    const exported = await call(installation.kms.internalUrl, '/v1/export/by-hand-dek', { token: service });
    const [file = ''] = await documents('by-hand', 1);
    expect(
      execFileSync(String(pathOf('python')), ['-c', open, file], { input: exported.text }).toString(),
    ).toBe(expected);
    expect(python(open, [installation.tokenFile], exported.text).status).not.toBe(0);
  });

  it('a wrapped key opens with the KEK alone, and one of a customer with his key as well', async () => {
    const expected = await put('by-two', 'a');
    // Bundoc seals it under the new version once there is one.
    const former = await documents('by-two', 1, 'former');
    const admin = await installation.issue({ sub: 'ops', typ: 'service', scope: ['kms:admin'], keys: ['*'] });
    await call(installation.kms.apiUrl, '/v1/keys/by-two-dek/outside', {
      method: 'PUT',
      token: admin,
      body: '{"key":"acme"}',
    });
    const projectFile = join(installation.folder, 'project.json');
    const kek = join(installation.folder, 'kek');
    writeFileSync(kek, `${'00'.repeat(32)}\n${installation.kekHex}\n`);
    await expect
      .poll(
        async () => {
          await put('by-two', 'b');
          writeFileSync(projectFile, await installation.stored.projectFile('by-two'));
          return JSON.parse(readFileSync(projectFile, 'utf8')).versions.length;
        },
        { timeout: 20_000, interval: 100 },
      )
      .toBe(2);
    /** What the key of a version opens of the documents. */
    const openedBy = (key: string, files: readonly string[]) =>
      files.map((file) => python(open, [file], key)).filter(({ status }) => status === 0);

    const first = python(unwrap, [projectFile, kek, '1'], '');
    expect(first.stderr).toBe('');
    expect(openedBy(first.stdout, former).map(({ stdout }) => stdout)).toEqual([expected]);

    const without = python(unwrap, [projectFile, kek, '2'], '');
    expect(without).toMatchObject({ status: 1, stdout: '' });
    const [, blob = ''] = /^the outside key acme must unwrap (\S+)\n$/.exec(without.stderr) ?? [];
    const ciphertext = Buffer.from(blob, 'base64').toString('latin1');
    const [hisToken = ''] = customer.service.tokens.keys();
    const unwrapped = await fetch(`${customer.service.url}/v1/transit/decrypt/acme`, {
      method: 'POST',
      headers: { 'x-vault-token': hisToken },
      body: JSON.stringify({ ciphertext }),
    });
    const { data } = (await unwrapped.json()) as { data: { plaintext: string } };
    const second = python(unwrap, [projectFile, kek, '2'], `${data.plaintext}\n`);
    expect(second.stderr).toBe('');
    await put('by-two', 'b');
    expect(openedBy(second.stdout, former)).toEqual([]);
    expect(openedBy(second.stdout, await documents('by-two', 2)).length).toBeGreaterThan(0);
    // Another share, and the DEK of another version, open nothing.
    expect(python(unwrap, [projectFile, kek, '2'], `${Buffer.alloc(32).toString('base64')}\n`).status).toBe(
      1,
    );
    expect(second.stdout).not.toBe(first.stdout);
  });
});

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/**
 * Both services run with successes and every kind of failure. A search through everything that they wrote
 * then looks for secrets.
 */
let installation: Installation;
const answers: string[] = [];
const secrets = new Map<string, string | Buffer>();

beforeAll(async () => {
  installation = await Installation.start({ settings: { cacheBytes: 0 } });
  const token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  const service = installation.read('kms-token').toString().trim();
  const keep = async (promise: ReturnType<typeof call>) => {
    const answer = await promise;
    answers.push(`${JSON.stringify(answer.headers)}\n${answer.text}`);
    return answer;
  };
  const base = '/v1/projects/planted/collections/planted_collection/documents';
  const put = (id: string, body: string, headers: Record<string, string> = {}) =>
    keep(call(installation.url, `${base}/${id}`, { method: 'PUT', token, body, headers }));

  await put('planted-id', '{"planted-member":"planted-value"}');
  await put('planted-id', '{"planted-member":"planted-value", broken');
  await put('planted-id', '{"_planted-member":"planted-value"}');
  await put('planted-id', '{"planted-member":"planted-value"}', { 'if-match': '"planted-etag"' });
  await put('planted-id%00', '{}');
  await keep(call(installation.url, `${base}/planted-id-2`, { token }));
  await keep(call(installation.url, `${base}/planted-id`, { token: `${token}x` }));
  await keep(call(installation.url, '/metrics', { token }));
  await keep(call(installation.url, '/ready'));
  const exported = (
    await call(installation.kms.internalUrl, '/v1/export/planted-dek', { token: service })
  ).json();
  await keep(call(installation.kms.internalUrl, '/v1/export/planted-dek', { token }));
  await keep(
    call(installation.kms.internalUrl, `/v1/export/${String(exported['key_material_b64'])}`, {
      token: service,
    }),
  );
  await keep(
    call(installation.kms.apiUrl, '/v1/keys', {
      method: 'POST',
      token: service,
      body: '{"name":"x-dek","type":"planted-value"}',
    }),
  );

  // Provoke a document file that does not open, and a read while BunKMS is down.
  const [document] = await installation.stored.sealedDocuments('planted', 1);
  if (document === undefined) throw new Error('a document was expected');
  await installation.stored.replaceSealed('planted', { ...document, sealed: document.sealed.subarray(1) });
  for (let n = 0; n < 5; n++) await keep(call(installation.url, `${base}/planted-id`, { token }));
  await installation.stored.replaceSealed('planted', document);
  await installation.stopKms();
  await keep(
    call(installation.url, '/v1/projects/cold/collections/c/documents/planted-id', {
      method: 'PUT',
      token,
      body: '{"a":"planted-value"}',
    }),
  );

  const dek = Buffer.from(String(exported['key_material_b64']), 'base64');
  const kek = Buffer.from(installation.kekHex, 'hex');
  for (const [name, key] of [
    ['DEK', dek],
    ['KEK', kek],
  ] as const) {
    secrets.set(`${name}, raw`, key);
    for (const encoding of ['hex', 'base64', 'base64url'] as const)
      secrets.set(`${name}, ${encoding}`, key.toString(encoding).replace(/=+$/, ''));
  }
  secrets.set('client token', String(token.split('.')[2]));
  secrets.set('service token', String(service.split('.')[2]));
  for (const word of ['planted-id', 'planted-member', 'planted-value', 'planted_collection', 'planted-etag'])
    secrets.set(word, word);
});
afterAll(() => installation[Symbol.asyncDispose]());

function expectNone(where: string, text: Buffer, except: readonly string[] = []): void {
  for (const [name, secret] of secrets) {
    if (except.includes(name)) continue;
    expect(text.includes(secret), `${name} in ${where}`).toBe(false);
  }
}

describe('no key, token, document, id or value', () => {
  it('is in any log line of either service', () => {
    // It was read more than once. Repetitions are counted.
    expect(installation.log.text.match(/a document file does not open/g)).toHaveLength(1);
    expect(installation.log.text).toContain('call to BunKMS failed');
    expectNone('the logs', Buffer.from(installation.log.text));
  });

  it('is in any refusal', () => {
    const refusals = answers.filter((answer) => answer.includes('"code"'));
    expect(refusals.length).toBeGreaterThan(8);
    expectNone('a refusal', Buffer.from(refusals.join('\n')));
  });

  it('is in the metrics', () => {
    const metrics = answers.find((answer) => answer.includes('bundoc_http_request_duration_seconds'));
    expectNone('the metrics', Buffer.from(String(metrics)));
  });

  it('is in stored data', async () => {
    const stored = await installation.stored.everything();
    expect(stored.includes('planted-dek')).toBe(true);
    expectNone('the storage', stored);
  });

  it('is in any file of either service, except Bundoc’s token in its own file', () => {
    const files: string[] = [];
    for (const entry of readdirSync(installation.folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      files.push(path);
      expectNone(
        path,
        Buffer.concat([Buffer.from(path), readFileSync(path)]),
        path === installation.tokenFile ? ['service token'] : [],
      );
    }
    expect(files).toContain(installation.tokenFile);
    expect(files.filter((path) => path.startsWith(installation.kmsDir))).not.toEqual([]);
  });
});

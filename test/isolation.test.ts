import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
beforeAll(async () => {
  // Without a cache, every read comes from the files that the tests tamper with.
  installation = await Installation.start({ settings: { cacheBytes: 0 } });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;
const get = (project: string, id: string) => call(installation.url, pathOf(project, id), { token });

const written = new Map<string, string[]>();

/** Writes a document and returns its new file, once reads come from that file. */
async function put(project: string, id: string, body: string): Promise<string> {
  const before = written.get(project) ?? [];
  expect((await call(installation.url, pathOf(project, id), { method: 'PUT', token, body })).status).toBe(
    201,
  );
  const after = await installation.documentFiles(project, before.length + 1);
  written.set(project, after);
  await expect.poll(() => metric('bundoc_backlog_bytes')).toBe(0);
  return String(after.find((file) => !before.includes(file)));
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  } catch {
    return [];
  }
}

async function expectIntegrityError(project: string, id: string): Promise<void> {
  const answer = await get(project, id);
  expect([answer.status, answer.json()['code']]).toEqual([500, 'integrity_error']);
  expect(answer.text).not.toContain('planted');
}

async function metric(name: string): Promise<number> {
  const text = await installation.metrics();
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1]);
}

const integrityErrors = () => metric('bundoc_integrity_errors_total');

describe('a document file', () => {
  it('a document file that is truncated, empty or has a flipped bit is an integrity error in metric and log', async () => {
    const file = await put('tamper', 'a', '{"v":"planted"}');
    await put('tamper', 'b', '{"v":"fine"}');
    const original = readFileSync(file);
    const before = await integrityErrors();
    const flipped = Buffer.from(original);
    flipped[20]! ^= 1;
    for (const bytes of [flipped, original.subarray(0, -1), original.subarray(0, 10), Buffer.alloc(0)]) {
      writeFileSync(file, bytes);
      await expectIntegrityError('tamper', 'a');
    }
    expect((await get('tamper', 'b')).status).toBe(200);
    expect((await integrityErrors()) - before).toBe(4);
    expect(installation.log.text).toMatch(
      /"project":"tamper","file":"[0-9a-f]{32}".*a document file does not open/,
    );
    writeFileSync(file, original);
    expect((await get('tamper', 'a')).json()['v']).toBe('planted');
  });

  it("swapped with another document's file is an integrity error of both", async () => {
    const [a, b] = [await put('swap', 'a', '{"v":"planted"}'), await put('swap', 'b', '{"v":"planted"}')];
    const [first, second] = [readFileSync(a), readFileSync(b)];
    writeFileSync(a, second);
    writeFileSync(b, first);
    await expectIntegrityError('swap', 'a');
    await expectIntegrityError('swap', 'b');
  });

  it('copied from another project does not open', async () => {
    const from = await put('copy-from', 'a', '{"v":"planted"}');
    const to = await put('copy-to', 'a', '{"v":"mine"}');
    writeFileSync(to, readFileSync(from));
    await expectIntegrityError('copy-to', 'a');
  });
});

it('a second Bundoc refuses a data folder in use, and names the first', async () => {
  await put('in-use', 'a', '{"v":1}');
  await expect(installation.startBundoc()).rejects.toThrow(new RegExp(`in use .*process ${process.pid}`));
  expect((await call(installation.url, pathOf('in-use', 'a'), { token })).status).toBe(200);
});

describe('a project folder', () => {
  it('copied under another name is refused as project_damaged, and nothing is written', async () => {
    await put('original', 'a', '{"v":"planted"}');
    const projects = join(installation.dataDir, 'projects');
    cpSync(join(projects, 'original'), join(projects, 'renamed'), { recursive: true });
    for (const method of ['GET', 'PUT']) {
      const answer = await call(installation.url, pathOf('renamed', 'a'), {
        method,
        token,
        ...(method === 'PUT' ? { body: '{}' } : {}),
      });
      expect([answer.status, answer.json()['code']]).toEqual([503, 'project_damaged']);
      expect(answer.headers['retry-after']).toBeDefined();
    }
  });

  it('reveals only project ids: no document, id, collection, member or value', async () => {
    const words = ['planted-id', 'planted-value', 'planted-member', 'planted_collection'];
    await call(installation.url, '/v1/projects/opaque/collections/planted_collection/documents/planted-id', {
      method: 'PUT',
      token,
      body: '{"planted-member":"planted-value"}',
    });
    // With the service stopped, the files do not change during the search.
    await installation.stopBundoc();
    const folders = ['projects', 'log'].map((name) => join(installation.dataDir, name));
    const everything = Buffer.concat(
      folders.flatMap(filesOf).flatMap((file) => [Buffer.from(file), readFileSync(file)]),
    );
    for (const word of words) {
      expect(everything.includes(word), word).toBe(false);
      expect(everything.includes(Buffer.from(word).toString('base64').slice(0, -4)), word).toBe(false);
    }
  });
});

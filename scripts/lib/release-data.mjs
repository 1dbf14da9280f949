import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packedInstallation } from './packed.mjs';
import { UserError } from './root.mjs';
import { mustRun } from './run.mjs';

const CONFIRMED_WITHIN_MS = 30_000;

/**
 * Lets the packed services of a release write data, and archives it: the KEK, both data folders, and a list
 * of the documents. Tests of later releases open it.
 * @param {Parameters<typeof packedInstallation>[0] & { archive: string, signal?: AbortSignal }} options
 */
export async function keepReleaseData({ archive, signal, ...options }) {
  const { place, env } = options;
  mkdirSync(place, { recursive: true });
  const installation = packedInstallation(options);
  const made = await installation.bunkms('init', '--create-kek', '--service-token', installation.tokenFile);
  if (made === undefined) throw new UserError('the packed bunkms could not create an installation');
  const kms = await installation.startKms();
  try {
    const bundoc = await installation.startBundoc(kms.record.internalUrl);
    try {
      const token = await installation.bunkms(
        ...['token', 'issue', '--typ', 'client', '--sub', 'release', '--project', '*'],
        ...['--scope', 'docs:read docs:write docs:admin'],
      );
      const documents = await writeDocuments(bundoc.record.url, String(token));
      writeFileSync(join(place, 'documents.json'), `${JSON.stringify(documents, null, 1)}\n`);
      await bundoc.stop();
    } catch (error) {
      await bundoc.kill();
      throw error;
    }
    await kms.stop();
  } catch (error) {
    await kms.kill();
    throw error;
  }
  // This token expires; those who open the archive create a new one.
  rmSync(installation.tokenFile, { force: true });
  mkdirSync(join(archive, '..'), { recursive: true });
  await mustRun('tar', ['-czf', archive, '-C', place, '.'], { cwd: place, env, signal });
}

/**
 * Writes data in all formats into two projects. It creates, replaces, patches and deletes documents, also in
 * a batch. The data include large documents, numbers that a double cannot represent, a unique index and a
 * schema.
 * @returns {Promise<Record<string, string | null>>} the exact text of each document by its path; null for a
 *   deleted one
 */
async function writeDocuments(url, token) {
  await untilConfirmed(url);
  const ask = async (method, path, body, type = 'application/json') => {
    const answer = await fetch(`${url}/v1/projects/${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': type }) },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new UserError(`${method} ${path} was answered ${answer.status}: ${text}`);
    return text;
  };
  const paths = [];
  const put = async (project, collection, id, body) => {
    const path = `${project}/collections/${collection}/documents/${id}`;
    paths.push(path);
    await ask('PUT', path, body);
    return path;
  };
  await ask('PUT', 'project-a/collections/people', {
    indexes: [{ fields: ['mail'], unique: true }],
    schema: { required: ['mail'], properties: { mail: { type: 'string' } } },
  });
  for (let n = 0; n < 20; n++)
    await put('project-a', 'people', `person-${n}`, { mail: `${n}@example.org`, n });
  await put('project-a', 'people', 'person-0', { mail: '0@example.org', n: 'replaced' });
  await put('project-a', 'notes', 'exact', '{"amount": 12345678901234567890.10,  "b":1, "a":[1.0]}');
  await put('project-a', 'notes', 'large', { text: 'x'.repeat(200_000) });
  const patched = await put('project-b', 'notes', 'patched', { a: 1, b: 2 });
  await ask('PATCH', patched, { b: null, c: 3 }, 'application/merge-patch+json');
  const deleted = await put('project-b', 'notes', 'deleted', { gone: true });
  await ask('DELETE', deleted);
  await ask('POST', 'project-b/batch', {
    operations: [{ op: 'put', collection: 'notes', id: 'batched', document: { batched: true } }],
  });
  paths.push('project-b/collections/notes/documents/batched');
  const texts = {};
  for (const path of paths) texts[path] = path === deleted ? null : await ask('GET', path);
  return texts;
}

async function untilConfirmed(url) {
  const deadline = Date.now() + CONFIRMED_WITHIN_MS;
  while (!(await fetch(`${url}/ready`)).ok) {
    if (Date.now() > deadline) throw new UserError('the packed Bundoc was not ready in time');
    await sleep(20);
  }
}

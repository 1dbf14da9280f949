import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startBundocProcess } from './support/bundoc-process.ts';
import { type Answer, call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

/** The log reserves 64 MiB at the start. */
const DISK_BYTES = 96 * 1_048_576;
const BALLAST_BYTES = 8 * 1_048_576;
const WRITES_MAX = 5_000;
const WRITERS = 8;
/** Large ones fill the disk with fewer requests. */
const PAD_BYTES = runs(200_000, 50_000);
/** The fewest documents that fill the disk, and then the freed space. */
const DOCUMENTS_MIN = runs(15, 50);
/** Documents that are deleted one after another while writers retry. */
const VICTIMS = runs(2, 12);

/** Mounts a small file system. */
function mountSmallDisk(directory: string): void {
  mkdirSync(directory, { recursive: true });
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', directory], { stdio: 'pipe' });
}

let installation: Installation;
let dataDir: string;
let ballast: string;
let token: string;
let isMounted = false;
let environment: Record<string, string>;
beforeAll(async () => {
  installation = await Installation.start();
  await installation.stopBundoc();
  token = await installation.client();
  dataDir = join(installation.folder, 'small-disk');
  ballast = join(dataDir, 'ballast');
  mountSmallDisk(dataDir);
  isMounted = true;
  environment = {
    ...PATIENT_BUNDOC,
    BUNDOC_DATA_DIR: dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  };
});
afterAll(async () => {
  // A lazy unmount succeeds although a failed test may still use the mount.
  if (isMounted) execFileSync('umount', ['-l', dataDir], { stdio: 'pipe' });
  await installation[Symbol.asyncDispose]();
});

describe('on a full disk', needs('mount'), () => {
  /** Acknowledged bodies by id; undefined for a deleted document. */
  const acknowledged = new Map<string, string | undefined>();
  const pathOf = (id: string) => `/v1/projects/full/collections/notes/documents/${id}`;
  const put = (url: string, id: string, body: string) =>
    call(url, pathOf(id), { method: 'PUT', token, body });

  let values = 0;
  const newBody = () => `{"v":${++values},"pad":"${'x'.repeat(PAD_BYTES)}"}`;

  function expectFull(answer: Answer): void {
    expect([answer.status, answer.json()['code']], answer.text).toEqual([507, 'disk_full']);
  }

  /**
   * Runs many writers, each until an answer says that the disk is full. They overwrite some documents and
   * create most.
   */
  async function fill(url: string): Promise<void> {
    const before = values;
    const writer = async (number: number): Promise<void> => {
      while (values - before < WRITES_MAX) {
        const body = newBody();
        const id = values % 4 === 0 ? `hot-${number}` : `doc-${values}`;
        const answer = await put(url, id, body);
        // On a busy machine, a large document may be refused for a moment.
        if (['overloaded', 'rate_limited'].includes(String(answer.json()['code']))) continue;
        if (answer.status !== 200 && answer.status !== 201) return expectFull(answer);
        acknowledged.set(id, body);
      }
      throw new Error('the disk never became full');
    };
    await Promise.all(Array.from({ length: WRITERS }, (_, number) => writer(number)));
  }

  /** Uses up the last bytes: the writers stop earlier, when a whole segment does not fit. */
  function takeTheRest(): void {
    const rest = openSync(join(dataDir, 'rest'), 'a');
    try {
      for (let n = 0; n < DISK_BYTES / 4_096; n++) writeSync(rest, Buffer.alloc(4_096));
      throw new Error('the disk has no end');
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    } finally {
      closeSync(rest);
    }
  }

  async function verify(url: string): Promise<void> {
    for (const [id, body] of acknowledged) {
      const answer = await call(url, pathOf(id), { token });
      expect(answer.status, `${id}: ${answer.text.slice(0, 200)}`).toBe(body === undefined ? 404 : 200);
      if (body !== undefined)
        expect(answer.text.endsWith(body.slice(1)), `${id} is as acknowledged`).toBe(true);
    }
  }

  async function remove(url: string, id: string): Promise<void> {
    const answer = await call(url, pathOf(id), { method: 'DELETE', token });
    expect(answer.status, answer.text).toBe(204);
    acknowledged.set(id, undefined);
  }

  it('writes get 507, reads and deletes succeed, nothing is lost, and freed space is used without a restart', async () => {
    writeFileSync(ballast, Buffer.alloc(BALLAST_BYTES));
    await using first = await startBundocProcess(environment);
    await fill(first.url);
    const full = acknowledged.size;
    expect(full).toBeGreaterThan(DOCUMENTS_MIN);
    await verify(first.url);

    // After a kill and after an orderly stop, with no byte left, a restart finds everything acknowledged.
    await first.kill();
    takeTheRest();
    await using between = await startBundocProcess(environment);
    await verify(between.url);
    expect(await between.stop()).toBe(0);
    takeTheRest();
    await using second = await startBundocProcess(environment);
    await verify(second.url);

    // Deletes succeed one at a time while writers retry, because only deletes may use a reserve.
    const victims = [...acknowledged.keys()].filter((id) => id.startsWith('doc-')).slice(0, VICTIMS);
    for (const id of victims) {
      await Promise.all([fill(second.url), remove(second.url, id), fill(second.url)]);
    }
    await verify(second.url);

    rmSync(ballast);
    await expect.poll(async () => (await put(second.url, 'after', '{"v":0}')).status).toBe(201);
    acknowledged.set('after', '{"v":0}');
    const freed = acknowledged.size;
    await fill(second.url);
    expect(acknowledged.size - freed).toBeGreaterThan(DOCUMENTS_MIN);
    await verify(second.url);

    await second.kill();
    await using third = await startBundocProcess(environment);
    await verify(third.url);
    expect(await third.stop()).toBe(0);
    await using fourth = await startBundocProcess(environment);
    await verify(fourth.url);
    for (const { log } of [first, between, second, third, fourth])
      expect(log).not.toMatch(/does not open|storage of a project failed|cannot be opened/);
  });
});

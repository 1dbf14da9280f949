import { randomBytes, randomInt } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ArchiveReader } from '@bundoc/bundoc/engine/files/archive/lineage';
import { planRestore, restoreArchive } from '@bundoc/bundoc/engine/files/archive/restore';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { type IssueTokenInput, issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Server, startServer } from '../packages/bunkms/test/support/process.ts';
import { type BundocProcess, startBundocProcess } from './support/bundoc-process.ts';
import { call } from './support/installation.ts';

const PROJECTS = ['acme', 'globex', 'initech', 'umbrella'];

let folder: string;
let kmsEnvironment: Record<string, string>;
let kms: Server;
let bundoc: BundocProcess;
let client: string;
let admin: string;
let monitor: string;

const issue = (request: IssueTokenInput) =>
  withKms(
    kmsEnvironment,
    async ({ tokens }) => (await tokens.issue(issueTokenSchema.parse(request), { actor: 'cli' })).token,
  );

const startOn = (dataDir: string) =>
  startBundocProcess({
    BUNDOC_DATA_DIR: join(folder, dataDir),
    BUNDOC_ARCHIVE: join(folder, 'archive'),
    BUNDOC_KMS_URL: kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: join(folder, 'kms-token'),
  });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-archive-'));
  mkdirSync(join(folder, 'archive'));
  kmsEnvironment = { BUNKMS_DATA_DIR: join(folder, 'kms'), BUNKMS_KEK: randomBytes(32).toString('hex') };
  await init(kmsEnvironment, { serviceToken: join(folder, 'kms-token') });
  kms = await startServer(kmsEnvironment);
  client = await issue({
    sub: 'app',
    typ: 'client',
    scope: ['docs:read', 'docs:write', 'docs:admin'],
    projects: ['*'],
  });
  const scope = ['kms:manage_key', 'kms:rotate_key'] as const;
  admin = await issue({ sub: 'admin', typ: 'service', scope: [...scope], keys: ['*'] });
  monitor = await issue({ sub: 'monitor', typ: 'service', scope: ['docs:metrics'] });
});
afterEach(async () => {
  await bundoc.stop();
  await kms.stop();
  rmSync(folder, { recursive: true, force: true });
});

const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;

async function put(project: string, id: string, text: string): Promise<void> {
  const body = JSON.stringify({ text });
  const answer = await call(bundoc.url, pathOf(project, id), { token: client, method: 'PUT', body });
  expect([200, 201], answer.text).toContain(answer.status);
}

async function read(project: string, id: string): Promise<unknown> {
  const answer = await call(bundoc.url, pathOf(project, id), { token: client });
  return answer.status === 200 ? answer.json()['text'] : answer.json()['code'];
}

async function metric(name: string): Promise<number> {
  const { text } = await call(bundoc.url, '/metrics', { token: monitor });
  return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
}

/** Resolves once everything that was written until now is in the archive. */
async function shipped(): Promise<number> {
  const beganMs = Date.now();
  await expect
    .poll(async () => Date.now() - 1_000 * (await metric('bundoc_archive_age_seconds')), {
      timeout: PATIENT_MS,
    })
    .toBeGreaterThan(beganMs);
  return Date.now();
}

async function restoreTo(dataDir: string, atMs?: number): Promise<void> {
  await restoreStorage(await storageId(), dataDir, atMs);
}

const storageId = async () =>
  String((await call(bundoc.url, '/ready', { token: monitor })).json()['storage_id']);

async function restoreStorage(id: string, dataDir: string, atMs?: number): Promise<void> {
  const setting = join(folder, 'archive');
  await using storage = openObjectStorage(setting, {
    variable: 'BUNDOC_ARCHIVE',
    environment: {},
    clock: systemClock,
  });
  const reader = new ArchiveReader(storage, Buffer.from(id.replaceAll('-', ''), 'hex'));
  await restoreArchive(reader, await planRestore(reader, atMs), join(folder, dataDir));
}

async function takeOver(): Promise<void> {
  const id = (await call(bundoc.url, '/ready')).json()['storage_id'];
  const body = JSON.stringify({ force: true });
  const path = `/v1/storages/${id}/take-over`;
  const answer = await call(kms.internalUrl, path, { method: 'POST', token: admin, body });
  expect(answer.status, answer.text).toBe(200);
}

describe('the archive of a running Bundoc', () => {
  it('has every acknowledged write of a machine that is lost, and goes on in the restored folder', async () => {
    bundoc = await startOn('data');
    for (const project of PROJECTS)
      for (let n = 0; n < 10; n++) await put(project, `d${n}`, `first ${project} ${n}`);
    const before = await shipped();
    for (const project of PROJECTS) await put(project, 'd0', `second ${project}`);
    await put('late', 'd0', 'of a project that came later');
    expect(
      (await call(bundoc.url, '/v1/projects/umbrella?confirm=umbrella', { token: client, method: 'DELETE' }))
        .status,
    ).toBe(200);
    await shipped();

    await restoreTo('restored');
    await restoreTo('earlier', before);
    await bundoc.kill();
    rmSync(join(folder, 'data'), { recursive: true });

    bundoc = await startOn('restored');
    expect(await read('acme', 'd0')).toBe('storage_superseded');
    await takeOver();
    await expect.poll(() => read('acme', 'd0'), { timeout: PATIENT_MS }).toBe('second acme');
    for (const project of ['acme', 'globex', 'initech']) {
      expect(await read(project, 'd0')).toBe(`second ${project}`);
      for (let n = 1; n < 10; n++) expect(await read(project, `d${n}`)).toBe(`first ${project} ${n}`);
    }
    expect(await read('late', 'd0')).toBe('of a project that came later');
    expect(await read('umbrella', 'd1')).toBe('project_destroyed');
    await put('acme', 'd10', 'after the fire');
    await shipped();
    await bundoc.stop();

    // A moment in the past: what came later is gone, and a shredded project stays unreadable.
    bundoc = await startOn('earlier');
    await takeOver();
    await expect.poll(() => read('acme', 'd0'), { timeout: PATIENT_MS }).toBe('first acme 0');
    expect(await read('late', 'd0')).toBe('project_damaged');
    expect(await read('umbrella', 'd1')).toBe('project_destroyed');
    await shipped();

    // Of several chains, the newest is that of the last take-over.
    await restoreTo('again');
    await bundoc.stop();
    bundoc = await startOn('again');
    await takeOver();
    await expect.poll(() => read('acme', 'd0'), { timeout: PATIENT_MS }).toBe('first acme 0');
    expect(await read('acme', 'd10')).toBe('document_not_found');
  });

  it('continues its chain after kill -9, and begins another one on an older copy of the folder', async () => {
    bundoc = await startOn('data');
    await put('acme', 'a', 'one');
    await shipped();
    await bundoc.stop();
    cpSync(join(folder, 'data'), join(folder, 'copy'), { recursive: true });
    bundoc = await startOn('data');
    await put('acme', 'b', 'two');
    await bundoc.kill();
    bundoc = await startOn('data');
    await put('acme', 'c', 'three');
    await shipped();
    await restoreTo('restored');
    await bundoc.stop();

    bundoc = await startOn('copy');
    await takeOver();
    await expect.poll(() => read('acme', 'a'), { timeout: PATIENT_MS }).toBe('one');
    await put('acme', 'd', 'four');
    await shipped();
    await restoreTo('of-copy');
    await bundoc.stop();

    for (const [dataDir, expected] of [
      ['restored', ['one', 'two', 'three', 'document_not_found']],
      ['of-copy', ['one', 'document_not_found', 'document_not_found', 'four']],
    ] as const) {
      bundoc = await startOn(dataDir);
      await takeOver();
      await expect.poll(() => read('acme', 'a'), { timeout: PATIENT_MS }).toBe('one');
      expect(await Promise.all(['a', 'b', 'c', 'd'].map((id) => read('acme', id)))).toEqual(expected);
      await bundoc.stop();
    }
  });
});

/** What the writer of a document knows. Its text is a number that grows. */
interface Written {
  readonly project: string;
  readonly id: string;
  tried: number;
  /** Acknowledged numbers, and when. */
  acknowledged: { readonly n: number; readonly atMs: number }[];
}

describe('a machine that is killed again and again', () => {
  const SEED = Number(process.env['KILL_SEED'] ?? randomInt(1, 2_147_483_646));
  const LIVES = runs(3, 24);
  let seed = SEED;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };

  /** Writes everywhere until the process is killed. @returns up to when the archive has everything. */
  async function live(written: readonly Written[], lifeMs: number): Promise<number> {
    await expect
      .poll(() => metric('bundoc_archive_round_age_seconds'), { timeout: PATIENT_MS })
      .toBeGreaterThanOrEqual(0);
    let isOver = false;
    let completeMs = 0;
    const writers = written.map(async (one) => {
      while (!isOver) {
        const n = ++one.tried;
        const done = await put(one.project, one.id, String(n)).then(
          () => true,
          () => false,
        );
        if (done) one.acknowledged.push({ n, atMs: Date.now() });
        else if (!isOver) await sleep(50);
      }
    });
    const watching = (async () => {
      while (!isOver) {
        const askedMs = Date.now();
        const ageMs = 1_000 * (await metric('bundoc_archive_age_seconds').catch(() => Number.NaN));
        if (ageMs >= 0) completeMs = askedMs - ageMs;
        await sleep(20);
      }
    })();
    await sleep(lifeMs);
    await bundoc.kill();
    isOver = true;
    await Promise.all([...writers, watching]);
    return completeMs;
  }

  /** @param upToMs what was acknowledged later may be lost. */
  async function check(written: readonly Written[], upToMs: number): Promise<void> {
    for (const one of written) {
      const kept = one.acknowledged.filter(({ atMs }) => atMs <= upToMs).at(-1)?.n ?? 0;
      const found = await read(one.project, one.id);
      const n = found === 'document_not_found' ? 0 : Number(found);
      expect(n, `seed ${SEED}: ${one.project}/${one.id}, found ${found}`).toBeGreaterThanOrEqual(kept);
      expect(n).toBeLessThanOrEqual(one.tried);
      one.acknowledged = [{ n, atMs: 0 }];
    }
  }

  it(`keeps every write that its archive has, also if its folder is lost (seed ${SEED})`, async () => {
    const written = PROJECTS.flatMap((project) =>
      ['a', 'b', 'c'].map((id): Written => ({ project, id, tried: 0, acknowledged: [] })),
    );
    let dataDir = 'data';
    bundoc = await startOn(dataDir);
    for (const project of PROJECTS) await put(project, 'a', '0');
    const id = await storageId();
    for (let life = 1; life <= LIVES; life++) {
      const completeMs = await live(written, 1_000 + 9_000 * random());
      const isLost = life === LIVES || random() < 0.5;
      if (isLost) {
        await restoreStorage(id, `restored-${life}`);
        rmSync(join(folder, dataDir), { recursive: true });
        dataDir = `restored-${life}`;
      }
      bundoc = await startOn(dataDir);
      if (isLost) await takeOver();
      await expect
        .poll(() => read('acme', 'a'), { timeout: PATIENT_MS })
        .toSatisfy((text) => Number(text) >= 0);
      await check(written, isLost ? completeMs : Number.POSITIVE_INFINITY);
    }
    expect(Math.min(...written.map(({ tried }) => tried))).toBeGreaterThan(LIVES);
  }, 600_000);
});

describe('a fire that takes both services', () => {
  /** Runs `bunkms` as the operator of the lost or the new machine. */
  async function bunkms(...args: string[]) {
    const variables = { NODE_ENV: 'test', ...kmsEnvironment };
    const { code, stdout, stderr } = await capturedRun(() => runBunkms([...args, '--json'], variables));
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout);
  }

  /** Resolves once the archive of BunKMS has everything up to now, in its chain or in a backup. */
  async function kmsShipped(): Promise<void> {
    const { seq } = await withKms(kmsEnvironment, ({ store }) => store.auditHead());
    const shippedSeq = async () => (await bunkms('archive', 'list')).last_record;
    await expect.poll(shippedSeq, { timeout: PATIENT_MS }).toBeGreaterThanOrEqual(seq);
  }

  it('loses nothing that both archives have, with a backup of BunKMS from before a rotation and a creation', async () => {
    const archive = join(folder, 'archive');
    await kms.stop();
    kmsEnvironment = { ...kmsEnvironment, BUNKMS_ARCHIVE: archive };
    kms = await startServer(kmsEnvironment);
    bundoc = await startOn('data');
    for (const project of PROJECTS) await put(project, 'd0', `first of ${project}`);
    const backups = async () => (await bunkms('archive', 'list')).backups;
    await expect.poll(async () => (await backups()).length, { timeout: PATIENT_MS }).toBe(1);

    const path = '/v1/keys/acme-dek/rotate';
    const rotated = await call(kms.internalUrl, path, { method: 'POST', token: admin });
    expect(rotated.status, rotated.text).toBe(200);
    const projectFile = join(folder, 'data', 'projects', 'acme', 'project.json');
    const hasRotated = async () => {
      await put('acme', 'd1', 'after the rotation');
      return /"version":\s*2\b/.test(readFileSync(projectFile, 'utf8'));
    };
    await expect.poll(hasRotated, { timeout: PATIENT_MS }).toBe(true);
    await put('late', 'd0', 'of a project that came later');
    const id = await storageId();
    await shipped();
    await kmsShipped();
    expect(await backups()).toHaveLength(1);
    await Promise.all([bundoc.kill(), kms.kill()]);
    for (const lost of ['data', 'kms', 'kms-token']) rmSync(join(folder, lost), { recursive: true });

    // The KEK and the archives are left.
    const { file, audit_copy: copy } = await bunkms('archive', 'fetch', '--to', join(folder, 'fetched'));
    await restoreStorage(id, 'restored');
    await bunkms('restore', file, '--audit-copy', copy);
    await bunkms('recover', '--from', join(folder, 'restored'));
    await init(kmsEnvironment, { serviceToken: join(folder, 'kms-token') });
    kms = await startServer(kmsEnvironment);
    bundoc = await startOn('restored');
    await takeOver();
    await expect.poll(() => read('acme', 'd1'), { timeout: PATIENT_MS }).toBe('after the rotation');
    for (const project of PROJECTS) expect(await read(project, 'd0')).toBe(`first of ${project}`);
    expect(await read('late', 'd0')).toBe('of a project that came later');
  });
});

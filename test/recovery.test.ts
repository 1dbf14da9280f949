import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { backup } from '@bundoc/bunkms/cli/backup';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { type RecoverCliOptions, recover } from '@bundoc/bunkms/cli/recover';
import { type RestoreCliOptions, restoreBackup } from '@bundoc/bunkms/cli/restore';
import { review } from '@bundoc/bunkms/cli/review';
import { MovedClock } from '@bundoc/shared/testing/moved-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { call, Installation } from './support/installation.ts';

let clock: MovedClock;
let installation: Installation;
let token: string;
const copy = join(tmpdir(), `bundoc-audit-copy-${randomUUID()}`);
beforeEach(async () => {
  // Other tests check the output of the commands.
  vi.spyOn(console, 'log').mockReturnValue();
  clock = new MovedClock();
  installation = await Installation.start({ clock, kmsEnvironment: { BUNKMS_AUDIT_SHIP: `file:${copy}` } });
  token = await installation.client();
  for (const project of ['p', 'q'])
    for (const id of ['a', 'b']) expect((await write(project, id)).status).toBe(201);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await installation[Symbol.asyncDispose]();
  rmSync(copy, { force: true });
});

const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;
const read = (project: string, id: string) => call(installation.url, pathOf(project, id), { token });
const write = (project: string, id: string) =>
  call(installation.url, pathOf(project, id), { method: 'PUT', token, body: `{"is":"${project}/${id}"}` });
const file = (name: string) => join(installation.folder, name);
const key = async (...args: string[]) =>
  expect(await runBunkms(['key', ...args], { NODE_ENV: 'test', ...installation.kmsEnvironment })).toBe(0);
/** Waits until the copy has the whole audit chain. */
const copied = () =>
  expect
    .poll(async () => {
      const head = await withKms(installation.kmsEnvironment, ({ store }) => store.auditHead());
      return readFileSync(copy, 'utf8').includes(head.hash);
    })
    .toBe(true);
const recoverKeys = async (options: Partial<RecoverCliOptions> = {}) => {
  const from = await installation.stored.projectFilesIn(file('project-files'));
  await recover(installation.kmsEnvironment, { from, ...options });
};
/** Runs `bunkms recover` while Bundoc is stopped: new projects may exist only in the log of a running one. */
const recoverBesideNobody = async (options: Partial<RecoverCliOptions> = {}) => {
  await installation.stopBundoc();
  await recoverKeys(options);
  await installation.startBundoc();
};
const restore = (options: Partial<RestoreCliOptions>) =>
  restoreBackup(installation.kmsEnvironment, file('backup'), { auditCopy: [], receipt: [], ...options });

async function expectReadable(project: string): Promise<void> {
  for (const id of ['a', 'b']) {
    const answer = await read(project, id);
    expect([answer.status, answer.json()['is']]).toEqual([200, `${project}/${id}`]);
  }
  expect((await write(project, 'after')).status).toBeLessThan(300);
}

/** Stops both services and removes the store of BunKMS. */
async function loseStore(): Promise<void> {
  await installation.stopBundoc();
  await installation.stopKms();
  rmSync(installation.kmsDir, { recursive: true });
}

/** Starts both services again, with valid tokens. */
async function startAgain(): Promise<void> {
  await init(installation.kmsEnvironment, { serviceToken: installation.tokenFile });
  await installation.startKms();
  await installation.startBundoc();
  token = await installation.client();
}

describe('documents', () => {
  it('are readable again once a lost store of BunKMS was rebuilt from the data folder and its keys were enabled', async () => {
    await key('rotate', 'p-dek');
    clock.movedMs += 900_000 * 0.85;
    await expect.poll(async () => (await write('p', 'later')).status && versionsOf('p')).toEqual([1, 2]);
    await loseStore();
    await startAgain();
    // Bundoc reports the missing key, and creates none.
    expect((await read('p', 'a')).json()).toMatchObject({ status: 503, code: 'key_missing' });
    await recoverKeys();
    // A recovered key has no known holder.
    await expect.poll(async () => (await read('p', 'a')).json()['code']).toBe('project_unclaimed');
    await review(installation.kmsEnvironment, { enable: [], enableAll: true });
    for (const name of ['p-dek', 'q-dek'])
      await installation.takeOverKey(name, await installation.storageId());
    for (const project of ['p', 'q'])
      await expect.poll(async () => (await read(project, 'a')).status).toBe(200);
    for (const project of ['p', 'q']) await expectReadable(project);
    expect((await read('p', 'later')).json()).toMatchObject({ is: 'p/later' });
  });

  const versionsOf = async (project: string): Promise<number[]> =>
    JSON.parse(await installation.stored.projectFile(project)).versions.map(
      ({ version }: { version: number }) => version,
    );

  it('documents whose key was destroyed after the backup stay unreadable after a restore with the chain copy', async () => {
    await backup(installation.kmsEnvironment, file('backup'), {});
    await key('destroy', 'p-dek', '--confirm', 'p-dek');
    await copied();
    await loseStore();
    await restore({ auditCopy: [copy] });
    await startAgain();
    expect((await read('p', 'a')).json()).toMatchObject({ status: 410, code: 'project_destroyed' });
    await expectReadable('q');
    await recoverBesideNobody();
    expect((await read('p', 'a')).json()).toMatchObject({ status: 410, code: 'project_destroyed' });
    await expectReadable('q');
  });

  it('come back only by a decision for each project when a backup is restored without a copy of the audit chain', async () => {
    await backup(installation.kmsEnvironment, file('backup'), {});
    await key('destroy', 'p-dek', '--confirm', 'p-dek');
    await loseStore();
    const before = token;
    await restore({});
    await startAgain();
    for (const project of ['p', 'q'])
      expect((await read(project, 'a')).json()).toMatchObject({ status: 409, code: 'project_unclaimed' });
    expect((await call(installation.url, pathOf('q', 'a'), { token: before })).status).toBe(401);
    await review(installation.kmsEnvironment, { enable: ['q-dek'] });
    for (const name of ['p-dek', 'q-dek'])
      await installation.takeOverKey(name, await installation.storageId());
    await expect.poll(async () => (await read('q', 'a')).status).toBe(200);
    await expectReadable('q');
    await expect.poll(async () => (await read('p', 'a')).status).toBe(403);
  });

  it('sealed under key versions newer than the backup are readable once those were recovered', async () => {
    await backup(installation.kmsEnvironment, file('backup'), {});
    await key('rotate', 'p-dek');
    await expect.poll(async () => (await write('p', 'new')).status && versionsOf('p')).toEqual([1, 2]);
    await copied();
    await loseStore();
    await restore({ auditCopy: [copy] });
    await startAgain();
    await expectReadable('q');
    expect((await read('p', 'new')).json()).toMatchObject({ status: 503, code: 'key_damaged' });
    await recoverBesideNobody();
    await expect.poll(async () => (await read('p', 'new')).status).toBe(200);
    await expectReadable('p');
    expect((await read('p', 'new')).json()).toMatchObject({ is: 'p/new' });
    // The next rotation continues from the recovered version.
    await key('rotate', 'p-dek');
    // The restore counts as a take-over, so Bundoc may have rotated the key as well.
    const newest = async () => (await write('p', 'newer')).status && Math.max(...(await versionsOf('p')));
    await expect.poll(newest).toBeGreaterThan(2);
  });
});

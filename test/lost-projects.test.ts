import { join } from 'node:path';
import { type RunningBundoc, startBundoc } from '@bundoc/bundoc/app';
import { readConfig } from '@bundoc/bundoc/config';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { type Answer, call, Installation, PATIENT_BUNDOC } from './support/installation.ts';
import type { StoredProjects } from './support/stored-projects.ts';
import { untilConfirmed } from './support/until-confirmed.ts';

let installation: Installation;
let token: string;
let restored: StoredProjects;
const running: RunningBundoc[] = [];
let url: string;
beforeEach(async () => {
  installation = await Installation.start();
  token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
});
afterEach(async () => {
  await stop();
  await installation[Symbol.asyncDispose]();
});

const ask = (project: string, rest: string, method = 'GET', body?: string) =>
  call(url, `/v1/projects/${project}${rest}`, { method, token, ...(body === undefined ? {} : { body }) });
const read = (project: string) => ask(project, '/collections/notes/documents/a');
const write = (project: string, body = '{"n":1}') =>
  ask(project, '/collections/notes/documents/a', 'PUT', body);
const facts = (answer: Answer) => [answer.status, answer.json()['code'] ?? answer.json()['n']];
const LOST = [503, 'project_damaged'];

async function start(stored: StoredProjects): Promise<void> {
  const config = readConfig({
    BUNDOC_PORT: '0',
    ...PATIENT_BUNDOC,
    ...stored.environment,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  });
  const bundoc = await startBundoc(config, { logger: installation.log.logger('bundoc') });
  running.push(bundoc);
  await untilConfirmed(bundoc.url);
  ({ url } = bundoc);
}

async function stop(): Promise<void> {
  for (const bundoc of running.splice(0)) await bundoc.close();
}

const storageId = async () => String(JSON.parse(await installation.stored.identity()).id);

async function takeOver() {
  const environment = { NODE_ENV: 'test', ...installation.kmsEnvironment };
  const args = ['storage', 'take-over', await storageId(), '--force'];
  return capturedRun(() => runBunkms(args, environment));
}

/** Creates the key of a project that the storage holds, as a crash leaves it before the first write. */
async function createKeyOnly(project: string): Promise<void> {
  const scope = ['kms:create_key', 'kms:manage_key'] as const;
  const admin = await installation.issue({ sub: 'admin', typ: 'service', scope: [...scope], keys: ['*'] });
  const body = JSON.stringify({ name: `${project}-dek`, type: 'aes-256', storage: await storageId() });
  const path = `${installation.kms.internalUrl}`;
  const made = await call(path, '/v1/keys', { method: 'POST', token: admin, body });
  expect(made.status, made.text).toBe(201);
}

/** Runs a command on the restored storage, as its operator does. */
const command = (...args: string[]) =>
  bundocCommand(
    {
      ...restored.environment,
      BUNDOC_KMS_URL: installation.kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
    },
    args,
  );
const lostNow = async () => JSON.parse((await command('accept-loss', '--json')).stdout);

/** Creates `a`, copies the storage, creates the others, and starts the copy after a take-over. */
async function restoreToBefore(...later: string[]): Promise<void> {
  await keepMoment();
  for (const project of later) expect((await write(project)).status).toBe(201);
  await letCopyTakeOver();
  await start(restored);
}

/** Keeps a copy of the storage with the project `a`, and goes on. */
async function keepMoment(): Promise<void> {
  ({ url } = installation);
  expect((await write('a')).status).toBe(201);
  await installation.stopBundoc();
  restored = await installation.stored.clone(join(installation.folder, 'restored'));
  await installation.startBundoc();
  ({ url } = installation);
}

async function letCopyTakeOver(): Promise<void> {
  await installation.stopBundoc();
  expect((await takeOver()).code).toBe(0);
}

describe('after a restore to an earlier moment, a project that was created later', () => {
  it('is refused until its loss is accepted, and nothing else is', async () => {
    const logged = installation.log.text.length;
    await restoreToBefore('b', 'b2');
    for (const answer of [
      await write('b'),
      await read('b'),
      await ask('b', ''),
      await ask('b', '/changes'),
      await ask('b', '/collections'),
      await ask('b', '/collections/notes/documents'),
      await ask('b', '?confirm=b', 'DELETE'),
    ])
      expect(facts(answer)).toEqual(LOST);
    expect((await write('b')).json()['detail']).toContain('bundoc accept-loss');
    expect(facts(await read('a'))).toEqual([200, 1]);
    expect((await write('a')).status).toBe(200);
    expect((await write('c')).status).toBe(201);
    expect(facts(await read('unknown'))[0]).toBe(404);
    const list = await call(url, '/v1/projects', { token });
    expect(list.json()['projects']).toEqual([{ project: 'a' }, { project: 'c' }]);
    expect(installation.log.text.slice(logged)).toMatch(/"projects":2.*projects are lost/);
    const metrics = await call(url, '/metrics', {
      token: await installation.issue({ sub: 'm', typ: 'service', scope: ['docs:metrics'], projects: ['*'] }),
    });
    expect(metrics.text).toMatch(/^bundoc_lost_projects 2$/m);

    const beside = await command('accept-loss');
    // Another process may not use a data folder meanwhile; nodes on PostgreSQL go on.
    if (inject('postgresUrl') === undefined)
      expect([beside.code, beside.stderr]).toEqual([2, expect.stringContaining('data folder')]);
    else expect([beside.code, beside.stdout]).toEqual([0, 'b\nb2\n']);
    await stop();
    expect(await lostNow()).toEqual({ lost: ['b', 'b2'] });
    expect((await command('accept-loss', 'a')).code).toBe(2);
    expect((await command('accept-loss', 'b', '--all')).code).toBe(2);
    expect(JSON.parse((await command('accept-loss', 'b', '--json')).stdout)).toEqual({ accepted: ['b'] });
    await start(restored);
    expect((await write('b', '{"n":2}')).status).toBe(201);
    expect([facts(await read('b')), facts(await write('b2'))]).toEqual([[200, 2], LOST]);

    await stop();
    const all = await command('accept-loss', '--all');
    expect([all.code, all.stdout, all.stderr]).toEqual([
      0,
      'b2\n',
      'bundoc: accepted the loss of 1 project; a write creates one again, unless its key is destroyed\n',
    ]);
    expect((await command('accept-loss')).stderr).toBe('bundoc: 0 projects lost\n');
    await start(restored);
    expect((await write('b2')).status).toBe(201);
  });

  it('stays refused by each later start, and comes back whole by a restore from its backup', async () => {
    await keepMoment();
    expect((await write('b', '{"n":7}')).status).toBe(201);
    const file = join(installation.folder, 'b.backup');
    const backup = await bundocCommand({ BUNDOC_URL: url, BUNDOC_TOKEN: token }, ['backup', 'b', file]);
    expect(backup.code, backup.stderr).toBe(0);
    await letCopyTakeOver();
    for (let n = 0; n < 2; n++) {
      await start(restored);
      expect(facts(await write('b'))).toEqual(LOST);
      await stop();
    }
    const back = await command('restore', file);
    expect(back.code, back.stderr).toBe(0);
    expect(await lostNow()).toEqual({ lost: [] });
    await start(restored);
    expect(facts(await read('b'))).toEqual([200, 7]);
  });

  it('is not refused when it was deleted since, and its name stays used', async () => {
    await keepMoment();
    expect((await write('d')).status).toBe(201);
    expect((await ask('d', '?confirm=d', 'DELETE')).status).toBe(200);
    await letCopyTakeOver();
    await start(restored);
    expect(facts(await write('d'))).toEqual([410, 'project_destroyed']);
    await stop();
    expect(await lostNow()).toEqual({ lost: [] });
  });
});

describe('a follower of changes, over take-overs by the same copy', () => {
  const note = (id: string) => ask('a', `/collections/notes/documents/${id}`, 'PUT', '{"n":1}');
  const changesSince = (since?: string) =>
    ask('a', `/changes${since === undefined ? '' : `?since=${encodeURIComponent(since)}`}`);
  const sinceOf = (answer: Answer) => String(answer.json()['since']);
  const idsIn = (answer: Answer) =>
    (answer.json()['changes'] as { _id: string }[]).map(({ _id }) => _id).sort();

  it('restarts each time, and misses no change', async () => {
    await keepMoment();
    const again = await restored.clone(join(installation.folder, 'again'));
    const early = sinceOf(await changesSince());
    for (const id of ['lost-1', 'lost-2']) expect((await note(id)).status).toBe(201);
    let late = sinceOf(await changesSince(early));
    await installation.stopBundoc();
    for (const [round, copy] of [restored, again].entries()) {
      expect((await takeOver()).code).toBe(0);
      await start(copy);
      for (const since of [early, late])
        expect(facts(await changesSince(since))).toEqual([410, 'position_gone']);
      const fresh = await changesSince();
      expect(idsIn(fresh)).toEqual(['a']);
      // As many as the lost ones, so that positions which began at the copy would repeat.
      for (const n of [1, 2]) expect((await note(`new-${round}-${n}`)).status).toBe(201);
      const next = await changesSince(sinceOf(fresh));
      expect(idsIn(next)).toEqual([`new-${round}-1`, `new-${round}-2`]);
      expect(facts(await changesSince(late))).toEqual([410, 'position_gone']);
      late = sinceOf(next);
      await stop();
    }
  });
});

describe('a take-over of a storage that lacks nothing', () => {
  it('refuses no project, even one that a crash leaves with a key and without content afterwards', async () => {
    await restoreToBefore();
    await createKeyOnly('crashed');
    // Later starts do not look again.
    await stop();
    await start(restored);
    expect((await write('crashed')).status).toBe(201);
    await stop();
    expect(await lostNow()).toEqual({ lost: [] });
  });
});

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

/** Each start begins a segment of the log. After a few, the oldest are freed. */
const STARTS = 5;

it('a restore in place of a removed folder ends its commits in the log, and those of another folder wait for its return', async () => {
  await using installation = await Installation.start({ isOnFiles: true });
  const token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
  const put = (project: string, id: string) =>
    call(installation.url, `/v1/projects/${project}/collections/notes/documents/${id}`, {
      method: 'PUT',
      token,
      body: '{}',
    });
  const faults = () =>
    installation.log.text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ msg }) => String(msg).includes('log/stuck'));
  const remove = (project: string) =>
    rmSync(join(installation.dataDir, 'projects', project), { recursive: true });
  const restart = async () => {
    for (let n = 0; n < STARTS; n++) {
      await installation.startBundoc();
      await put('used', String(n));
      await installation.stopBundoc();
    }
  };
  for (const project of ['restored', 'removed']) await put(project, 'a');
  const file = join(installation.folder, 'restored.backup');
  const backup = ['backup', 'restored', file, '--url', installation.url];
  expect(await bundocCommand({ BUNDOC_TOKEN: token }, backup)).toMatchObject({ code: 0 });
  await installation.stopBundoc();

  remove('restored');
  const environment = {
    ...PATIENT_BUNDOC,
    BUNDOC_DATA_DIR: installation.dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  };
  expect(await bundocCommand(environment, ['restore', file])).toMatchObject({ code: 0 });
  await restart();
  expect(faults()).toEqual([]);
  expect(existsSync(join(installation.dataDir, 'log', 'stuck'))).toBe(false);

  await installation.startBundoc();
  await put('removed', 'b');
  await installation.stopBundoc();
  remove('removed');
  await restart();
  // One for each segment with commits of the folder.
  const [first, ...others] = faults();
  expect(first).toMatchObject({
    level: 'warn',
    handles: [expect.stringMatching(/^[\da-f]{16}$/)],
    msg: expect.stringContaining('commits of a project without a folder'),
  });
  for (const { level, handles, msg } of others)
    expect({ level, handles, msg }).toEqual({
      level: first?.['level'],
      handles: first?.['handles'],
      msg: first?.['msg'],
    });
  await installation.startBundoc();
});

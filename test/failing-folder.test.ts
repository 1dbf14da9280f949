import type { BundocParts } from '@bundoc/bundoc/app';
import { AppError } from '@bundoc/shared/contract/app-error';
import { expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

type Disk = Parameters<NonNullable<BundocParts['wrapDisk']>>[0];

const PROJECTS = 64;
const FAILING = 'p0';
/** Writes to each project: enough to fill and free the smallest log while the folder fails. */
const WRITES = 60;
const PAD = 'x'.repeat(24_000);

/** Makes every operation in the folder of one project fail while `isFailing` is true. */
function failingIn(project: string, isFailing: () => boolean): (own: Disk) => Disk {
  const isOf = (path: string) => isFailing() && new RegExp(`/projects/${project}(/|$)`).test(path);
  const guard = (...paths: readonly string[]) => {
    if (paths.some(isOf)) throw new AppError('storage_unavailable', { cause: new Error('EIO') });
  };
  return (own) => ({
    read: async (path, bytesMax) => {
      guard(path);
      return own.read(path, bytesMax);
    },
    openToRead: async (path, bytesMax) => {
      guard(path);
      return own.openToRead(path, bytesMax);
    },
    readStart: async (path, bytes) => {
      guard(path);
      return own.readStart(path, bytes);
    },
    size: async (path) => {
      guard(path);
      return own.size(path);
    },
    list: async (path) => {
      guard(path);
      return own.list(path);
    },
    makeDirectory: async (path) => {
      guard(path);
      return own.makeDirectory(path);
    },
    createFile: async (path, content) => {
      guard(path);
      return own.createFile(path, content);
    },
    rename: async (from, to) => {
      guard(from, to);
      return own.rename(from, to);
    },
    remove: async (path) => {
      guard(path);
      return own.remove(path);
    },
    removeTree: async (path) => {
      guard(path);
      return own.removeTree(path);
    },
    syncDirectory: async (path) => {
      guard(path);
      return own.syncDirectory(path);
    },
    openFile: async (path) => {
      guard(path);
      return own.openFile(path);
    },
    syncFiles: async (paths) => {
      guard(...paths);
      return own.syncFiles(paths);
    },
    writeFiles: async (files) => {
      const fails = files.map(({ path }) => {
        try {
          guard(path);
          return undefined;
        } catch (error) {
          return error as AppError;
        }
      });
      const outcomes = [...(await own.writeFiles(files.filter((_, at) => fails[at] === undefined)))];
      return fails.map((failure) => failure ?? outcomes.shift());
    },
  });
}

it('while the folder of one project fails, 99 % of the writes of 63 others succeed, and it loses no acknowledged write', async () => {
  let isFailing = false;
  await using installation = await Installation.start({
    isOnFiles: true,
    wrapDisk: failingIn(FAILING, () => isFailing),
    environment: { BUNDOC_LOG_BYTES: '67108864' },
  });
  const token = await installation.client();
  const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;
  const put = (project: string, n: number) =>
    call(installation.url, pathOf(project, `d${n}`), {
      method: 'PUT',
      token,
      body: `{"n":${n},"pad":"${PAD}"}`,
    });
  const names = Array.from({ length: PROJECTS }, (_, at) => `p${at}`);
  const acknowledged: number[] = [];
  for (const name of names) expect((await put(name, 0)).status).toBe(201);
  acknowledged.push(0);

  isFailing = true;
  let done = 0;
  const refused: string[] = [];
  await Promise.all(
    names.map(async (name) => {
      for (let n = 1; n <= WRITES; n++) {
        const answer = await put(name, n);
        if (name === FAILING) {
          if (answer.status === 201) acknowledged.push(n);
          else expect(answer.json()['code']).toMatch(/^(storage_unavailable|overloaded)$/);
        } else if (answer.status === 201) done++;
        else refused.push(`${answer.status} ${answer.text.slice(0, 200)}`);
      }
    }),
  );
  const metrics = await installation.metrics();
  process.stdout.write(
    `one folder fails: ${done} writes of others, ${refused.length} refused; of its own ${acknowledged.length} of ${WRITES}\n`,
  );
  // The log was freed in the meantime: it does not wait for the project whose folder fails.
  expect(metrics).toMatch(/^bundoc_log_stuck_projects 1$/m);
  expect(done / ((PROJECTS - 1) * WRITES), refused[0]).toBeGreaterThanOrEqual(0.99);

  // The log names the project and the cause.
  expect(installation.log.text).toMatch(
    /"level":"error"[^\n]*"msg":"the folder of project p0 failed, so its commits stay in log\/stuck: [^"]+EIO"/,
  );

  isFailing = false;
  await expect.poll(async () => (await put(FAILING, WRITES + 1)).status).toBeLessThan(300);
  for (const n of acknowledged)
    expect((await call(installation.url, pathOf(FAILING, `d${n}`), { token })).status, `d${n}`).toBe(200);
});

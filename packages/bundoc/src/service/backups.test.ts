import { AppError } from '@bundoc/shared/contract/app-error';
import { runInShare } from '@bundoc/shared/shares/share-key';
import { describe, expect, it } from 'vitest';
import { readProject } from '../engine/files/projects/project-reader.ts';
import { CliProject } from '../testing/cli-project.ts';
import { put } from '../testing/writes.ts';
import { Backups } from './backups.ts';

/** Backups of as many projects as are named, all of them the same one. */
async function start(padBytes = 0) {
  const project = new CliProject();
  const disk = CliProject.disk();
  const store = await project.open(disk);
  for (let n = 0; n < 20; n++) await store.commit([put(`d${n}`, `{"pad":"${'x'.repeat(padBytes)}"}`)]);
  const { file, place } = await readProject(await project.place(disk));
  let isGone = false;
  const acquire = async () => {
    if (isGone) throw new AppError('project_disabled');
    return { store, file, cipher: place.cipher, [Symbol.dispose]: () => undefined };
  };
  const backups = new Backups({
    instances: { acquire: acquire as never },
    clock: project.clock,
    limits: { limit: 2, bytesMax: 1_000 },
  });
  return { backups, withdraw: () => (isGone = true) };
}

const closed = (stream: NodeJS.EventEmitter) => new Promise((resolve) => stream.once('close', resolve));

describe('backups', () => {
  it('run one at a time for each project, a quarter of them for one subject, and a few in total', async () => {
    const { backups } = await start();
    const begin = (subject: string, project: string) =>
      runInShare({ subject, project }, () => backups.begin(project));
    const streams = [];
    for (const subject of ['a', 'b', 'c', 'd'])
      for (const n of [1, 2]) streams.push(await begin(subject, `${subject}-${n}`));
    await expect(begin('b', 'a-1')).rejects.toMatchObject({ code: 'rate_limited' });
    await expect(begin('a', 'a-3')).rejects.toMatchObject({
      code: 'rate_limited',
      detail: 'your share of backups is in use: 2 of 8, 0 of them by this project',
    });
    await expect(begin('e', 'e-1')).rejects.toMatchObject({ code: 'overloaded' });
    const [first] = streams;
    for await (const _piece of first!);
    (await begin('e', 'a-1')).destroy();
    for (const stream of streams) stream.destroy();
  });

  it('return their place when no client reads them, and when they cannot start', async () => {
    const { backups, withdraw } = await start();
    for (let n = 0; n < 10; n++) {
      const stream = await backups.begin('a');
      const end = closed(stream);
      stream.destroy();
      await end;
    }
    withdraw();
    for (let n = 0; n < 10; n++)
      await expect(backups.begin('a')).rejects.toMatchObject({ code: 'project_disabled' });
  });

  it('end incomplete when the key is revoked during them', async () => {
    // More than the buffer for a slow reader.
    const { backups, withdraw } = await start(200_000);
    const stream = await backups.begin('a');
    const read = (async () => {
      for await (const _piece of stream) withdraw();
    })();
    await expect(read).rejects.toMatchObject({ code: 'project_disabled' });
    await expect(backups.begin('a')).rejects.toMatchObject({ code: 'project_disabled' });
  });
});

import { describe, expect, it } from 'vitest';
import { DOWN, OTHER, startProcess } from '../testing/project-deletions.ts';
import type { SimulatedDisk } from '../testing/simulated-disk.ts';

describe('a deletion marker that BunKMS does not confirm', () => {
  const plant = async (disk: SimulatedDisk, project: string, text: string) => {
    await disk.makeDirectory(`/projects/${project}`);
    await disk.createFile(`/projects/${project}/deleted.json`, Buffer.from(text));
  };
  const since = '2026-01-01T00:00:00.000Z';
  const texts = [
    JSON.stringify({ deleted: 'p', format: 1, since }),
    JSON.stringify({ deleted: 'p', format: 1, since, keyDestroyedAt: since, finishedAt: since }),
    'no mark at all',
  ];

  it.each(texts)('is set aside: the project is served, and its key is unchanged (%s)', async (text) => {
    const first = startProcess();
    await first.write();
    await plant(first.disk, 'p', text);
    const { deletion, disk, projects, service, setAside, stateOf, write } = startProcess(
      first.disk.restart(),
      first.service,
    );
    deletion.requestCheck();
    await deletion.resume();
    expect(await projects.names('', 10)).toEqual(['p']);
    expect(await stateOf()).toBe('open');
    await write('p', 'b');
    expect(setAside).toEqual([{ project: 'p', file: expect.stringMatching(/^p-.*-deleted\.json$/) }]);
    expect(disk.files().get(`/set-aside/${setAside[0]?.file}`)?.toString()).toBe(text);
    expect(service.changes.map(({ kind }) => kind)).toEqual(['create']);
  });

  it.each(texts)(
    'an unconfirmed deletion marker for an unused id destroys nothing, and the id can be used (%s)',
    async (text) => {
      const { deletion, disk, service, setAside, stateOf, write } = startProcess();
      await plant(disk, 'p', text);
      deletion.requestCheck();
      await deletion.resume();
      await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_not_found' });
      expect([await stateOf(), service.changes]).toEqual(['absent', []]);
      await write();
      expect([setAside.length, service.changes.map(({ kind }) => kind)]).toEqual([1, ['create']]);
    },
  );

  it('an unconfirmed deletion marker for a project of another storage destroys nothing there, and stays', async () => {
    const { deletion, disk, service, setAside, stateOf } = startProcess();
    service.put('p-dek', OTHER);
    await plant(disk, 'p', texts[0]!);
    deletion.requestCheck();
    await deletion.resume();
    expect(await stateOf()).toBe('project_elsewhere');
    await expect(deletion.delete('p')).rejects.toMatchObject({ code: 'project_elsewhere' });
    expect([service.changes, setAside]).toEqual([[], []]);
  });

  it('stays while BunKMS is unavailable, and requests for the project get 503', async () => {
    const first = startProcess();
    await first.write();
    await plant(first.disk, 'p', texts[0]!);
    const { service, setAside, stateOf } = startProcess(first.disk.restart(), first.service);
    service.failure = DOWN;
    expect([await stateOf(), setAside]).toEqual(['kms_unavailable', []]);
  });
});

import { randomUUID } from 'node:crypto';
import { copyFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import {
  markOf,
  moving,
  resealed,
  server,
  setMark,
  useMoves,
  withCall,
} from './support/moves-with-obstacles.ts';
import { HELD } from './support/moving.ts';

describe('a move', needs('postgresql'), () => {
  useMoves();

  it("keeps the source's content while the target's project is incomplete", async () => {
    await moving.fill('files');
    const calls = withCall('acceptKey', async (...args) => {
      await moving.service.acceptKey(...args);
      moving.service.failure = new AppError('kms_unavailable');
      throw moving.service.failure;
    });
    await expect(moving.move({ ...moving.ports, calls })).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    moving.service.failure = undefined;
    const [leaving, whole] = [await markOf('files'), (await markOf('rows')) as string];
    // The target before the last bytes arrived.
    await setMark('rows', await resealed(whole, 'incoming'));
    await expect(moving.move()).rejects.toThrow('does not have it whole');
    expect(await markOf('files')).toBe(leaving);
    await setMark('rows', whole);
    await moving.move();
    expect([await moving.held('files'), await moving.held('rows')]).toEqual(['project_elsewhere', HELD]);
  });

  it.each([
    ['rows', 'a text'],
    ['rows', `bundoc-move-mark-1.${Buffer.alloc(200, 1).toString('base64url')}`],
    ['files', 'a text'],
    ['files', `bundoc-move-mark-1.${Buffer.alloc(200, 1).toString('base64url')}`],
    ['files', 'x'.repeat(5_000)],
  ] as const)(
    'leaves no room for forged marks: in %s, one is set aside, and the project is served',
    async (place, mark) => {
      // A text without the prefix of a move mark counts as a deletion mark.
      await moving.fill(place);
      await setMark(place, mark);
      expect(await moving.held(place)).toEqual(HELD);
      expect(await markOf(place)).toBeUndefined();
      expect(moving.setAside).toMatchObject([{ project: moving.project }]);
      if (place === 'files') expect(readdirSync(join(moving.folder, 'set-aside'))).toHaveLength(1);
      expect(moving.service.changes.map(({ kind }) => kind)).toEqual(['create']);
    },
  );

  it('sets aside a forged mark at the target that claims a deletion', async () => {
    await moving.fill('files');
    const since = new Date().toISOString();
    const deleted = JSON.stringify({ deleted: moving.project, format: 1, since });
    const of = `('${moving.project}', '${deleted}')`;
    await server.sql(`INSERT INTO bundoc.projects (project, marker) VALUES ${of}`, 'bundoc');
    await moving.move();
    expect(await moving.held('rows')).toEqual(HELD);
    expect(moving.setAside).toHaveLength(1);
  });

  it.each([
    ['rows', 'incoming'],
    ['files', 'moved'],
  ] as const)(
    'leaves in %s a mark "%s" whose project can be deleted there once BunKMS names that storage',
    async (place, state) => {
      await moving.fill('files');
      await moving.move();
      if (state === 'incoming') {
        await setMark(place, await resealed((await markOf('files')) as string, state));
        const of = `WHERE project = '${moving.project}'`;
        await server.sql(`UPDATE bundoc.projects SET file = NULL ${of}`, 'bundoc');
        // BunKMS was restored from before the move.
        const { id } = await (await moving.identity('files')).read();
        moving.service.takeOverKey(`${moving.project}-dek`, id);
      }
      const exists = async () => {
        const projects = await moving.projects(place, await moving.start(place));
        return projects.exists(moving.project);
      };
      await expect(exists()).rejects.toMatchObject({ code: 'project_elsewhere' });
      const { id } = await (await moving.identity(place)).read();
      moving.service.takeOverKey(`${moving.project}-dek`, id);
      expect(await exists()).toBe(true);
      // A deletion that was interrupted after the key was destroyed.
      moving.service.destroy(`${moving.project}-dek`);
      expect(await exists()).toBe(true);
      const projects = await moving.projects(place, await moving.start(place));
      await projects.remove(moving.project, {
        deleted: moving.project,
        format: 1,
        since: new Date().toISOString(),
      });
      expect(await exists()).toBe(false);
      expect(await moving.held(place)).toBe('project_destroyed');
    },
  );

  it('does not accept the mark of another project', async () => {
    await moving.fill('files');
    const [first, directory] = [moving.project, moving.directory];
    await moving.move();
    await moving.next(`${first}-other`);
    await moving.fill('files');
    copyFileSync(join(directory, 'move.mark'), join(moving.directory, 'move.mark'));
    expect(await moving.held('files')).toEqual(HELD);
    expect(moving.setAside).toMatchObject([{ project: moving.project }]);
  });

  it('obeys an authentic mark of an earlier move although BunKMS names this storage: requests are refused, and nothing is created', async () => {
    await moving.fill('files');
    await moving.move();
    const mark = (await markOf('files')) as string;
    const there = (await (await moving.identity('rows')).read()).id;
    // BunKMS was restored from before the move.
    const here = (await (await moving.identity('files')).read()).id;
    moving.service.takeOverKey(`${moving.project}-dek`, here);
    const node = await moving.node('files');
    for (const mode of ['existing', 'create'] as const)
      await expect(node.acquire(moving.project, mode as 'create')).rejects.toMatchObject({
        code: 'project_elsewhere',
        storage: there,
      });
    expect(await markOf('files')).toBe(mark);
    moving.service.takeOverKey(`${moving.project}-dek`, there);
    expect(await moving.held('rows')).toEqual(HELD);
  });

  it('leaves content without a holder to an administrator', async () => {
    await moving.fill('files');
    const standing = moving.service.standings.get(`${moving.project}-dek`);
    if (standing !== undefined) standing.holder = undefined;
    await setMark('files', `bundoc-move-mark-1.${randomUUID()}`);
    expect(await moving.held('files')).toBe('project_unclaimed');
    expect(await markOf('files')).toBeDefined();
  });
});

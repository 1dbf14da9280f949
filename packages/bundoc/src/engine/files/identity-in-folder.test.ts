import { StartRefused } from '@bundoc/shared/process/lifecycle';
import { describe, expect, it } from 'vitest';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { generationsOf, withCandidate } from '../identity/storage-file.ts';
import { identifyFolder } from './identity-in-folder.ts';

const FILE = '/data/storage.json';
const newDisk = () => new SimulatedDisk('/', '/data');
const GENERATION = 'b6f7a1de-4f0e-4b0a-8e0b-5b6b0b1f4c11';

describe('the identity of a data folder', () => {
  it('is created once, durably, and read by each later start', async () => {
    const disk = newDisk();
    const { id } = await (await identifyFolder(disk, '/data')).read();
    const later = disk.powerCut('synced only');
    await later.makeDirectory('/data/projects');
    await later.makeDirectory('/data/projects/p');
    expect(await (await identifyFolder(later, '/data')).read()).toEqual({
      format: 2,
      id,
      candidates: [],
      takenOverMs: 0,
    });
    expect((await (await identifyFolder(newDisk(), '/data')).read()).id).not.toBe(id);
  });

  it.each(['projects/p', 'log/00000001', 'moved/p'])(
    'is not created where there is %s: the start is refused, with a remedy',
    async (path) => {
      const disk = newDisk();
      const [folder, name] = path.split('/');
      await disk.makeDirectory(`/data/${folder}`);
      await disk.makeDirectory(`/data/${folder}/${name}`);
      await expect(identifyFolder(disk, '/data')).rejects.toBeInstanceOf(StartRefused);
      await expect(identifyFolder(disk, '/data')).rejects.toThrow(/storage\.json is missing.*Restore it/);
      expect(disk.files().has(FILE)).toBe(false);
    },
  );

  it.each([1, 3])('an identity of format %i is refused with the remedy, and kept', async (format) => {
    const disk = newDisk();
    const text = `{"format":${format},"whatever":true}`;
    await disk.createFile(FILE, Buffer.from(text));
    await expect(identifyFolder(disk, '/data')).rejects.toBeInstanceOf(StartRefused);
    await expect(identifyFolder(disk, '/data')).rejects.toThrow(
      new RegExp(`format ${format} of another version: export.*by bundoc export`),
    );
    expect(disk.files().get(FILE)?.toString()).toBe(text);
  });

  it.each(['', '{}', '{"format":0}', '{"format":"2"}', 'null'])(
    'is not recreated when the file is damaged: %s',
    async (text) => {
      const disk = newDisk();
      await disk.createFile(FILE, Buffer.from(text));
      await expect(identifyFolder(disk, '/data')).rejects.toThrow(/storage\.json is damaged.*restore it/);
      expect(disk.files().get(FILE)?.toString()).toBe(text);
    },
  );

  it('can be changed in place on a full disk', async () => {
    const disk = newDisk();
    const identity = await identifyFolder(disk, '/data');
    disk.failAt({ operation: 1, when: 'before', what: 'disk_full' });
    await identity.change((file) => withCandidate(file, GENERATION));
    const later = disk.powerCut('synced only');
    expect((await (await identifyFolder(later, '/data')).read()).candidates).toEqual([GENERATION]);
  });

  it('keeps the fifteen latest generations that BunKMS may have, besides the confirmed one', async () => {
    const identity = await identifyFolder(newDisk(), '/data');
    const all = Array.from({ length: 20 }, (_, n) => `b6f7a1de-4f0e-4b0a-8e0b-5b6b0b1f4c${String(n + 10)}`);
    await identity.change((file) => ({ ...file, generation: GENERATION }));
    for (const generation of all) await identity.change((file) => withCandidate(file, generation));
    expect(generationsOf(await identity.read())).toEqual([GENERATION, ...all.slice(5)]);
  });
});

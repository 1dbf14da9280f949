import { Writable } from 'node:stream';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { FakeKeyService } from '../testing/fake-key-service.ts';
import { SimulatedDisk } from '../testing/simulated-disk.ts';
import { identifyFolder } from './files/identity-in-folder.ts';
import { LostInFolder } from './files/lost-in-folder.ts';
import { startStorage } from './identity/started-storage.ts';
import { StorageGeneration } from './identity/storage-generation.ts';
import { LOST_FILE, markLost } from './lost-projects.ts';

const FILE = `/data/${LOST_FILE}`;
const newService = () => new FakeKeyService(new FakeClock());
const settle = async () => {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function newDisk(...projects: string[]): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk('/', '/data', '/data/tmp', '/data/projects');
  for (const project of projects) await addProject(disk, project);
  return disk;
}

async function addProject(disk: SimulatedDisk, project: string): Promise<void> {
  await disk.makeDirectory(`/data/projects/${project}`);
  await disk.syncDirectory('/data/projects');
  await disk.createFile(`/data/projects/${project}/project.json`, Buffer.from('{}'));
  await disk.syncDirectory(`/data/projects/${project}`);
}

/** A process on a data folder. Its pauses last until it ends. */
async function startOn(disk: SimulatedDisk, service: FakeKeyService) {
  const identity = await identifyFolderOf(disk);
  const { id } = await identity.read();
  const lost = await LostInFolder.open({
    disk,
    dataDir: '/data',
    projectsDir: '/data/projects',
    tmp: '/data/tmp',
  });
  const lines: string[] = [];
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  const logger = createLogger({ service: 'bundoc', level: 'error', destination });
  const generation = new StorageGeneration({
    id,
    identity,
    calls: service,
    logger,
    kmsUrl: 'http://kms:8082',
    outage: async () => service.failure,
    onTakenOver: (before, _takenOverMs, signal) =>
      markLost({ storage: { lost, identity }, calls: service, id, logger }, before, signal),
    pause: (_ms, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', reject);
      }),
  });
  return { identity, id, lost, generation, logged: () => lines.join('') };
}

async function identifyFolderOf(disk: SimulatedDisk) {
  // The folder of projects is empty or was made by the test, so the identity may be new.
  const present = await disk.list('/data');
  if (present?.includes('storage.json') !== true) {
    const bare = new SimulatedDisk('/', '/data');
    await identifyFolder(bare, '/data');
    await disk.createFile('/data/storage.json', (await bare.read('/data/storage.json', 9_999)) as Buffer);
    await disk.syncDirectory('/data');
  }
  return identifyFolder(disk, '/data');
}

/** A storage with the project `a`, which lacks `b` and `c`, and whose next start is after a take-over. */
async function taken() {
  const [disk, service] = [await newDisk('a'), newService()];
  const first = await startOn(disk, service);
  await first.generation.start();
  await first.generation[Symbol.asyncDispose]();
  for (const project of ['a', 'b', 'c']) service.put(`${project}-dek`, first.id);
  service.takeOverStorage(first.id);
  return { disk, service, id: first.id };
}

describe('the first start after a take-over', () => {
  it('skips a project whose folder cannot be read, and does not wait for it', async () => {
    const { disk, service } = await taken();
    disk.failing = (operation) => (operation === 'read /data/projects/b' ? 'before' : undefined);
    const { generation, lost } = await startOn(disk, service);
    await generation.start();
    disk.failing = undefined;
    expect([generation.state, await lost.list()]).toEqual(['confirmed', ['c']]);
  });

  it('marks the projects that the storage lacks but whose keys it holds, before it is confirmed', async () => {
    const { disk, service } = await taken();
    const gate = Promise.withResolvers<void>();
    service.afterListing = gate.promise;
    const { generation, lost, identity, logged } = await startOn(disk, service);
    const started = generation.start();
    await settle();
    expect([generation.state, lost.count]).toEqual(['unconfirmed', 0]);
    gate.resolve();
    await started;
    expect([generation.state, await lost.list()]).toEqual(['confirmed', ['b', 'c']]);
    expect([lost.has('a'), lost.has('b')]).toEqual([false, true]);
    expect((await identity.read()).takenOverMs).toBeGreaterThan(0);
    expect(logged()).toMatch(/"projects":2.*projects are lost.*bundoc accept-loss/);
    expect(disk.files().get(FILE)?.toString()).toBe('{"format":1,"projects":["b","c"]}\n');
  });

  it('is the only start that looks, so a key that a later crash leaves without content is adopted', async () => {
    const { disk, service, id } = await taken();
    await (await startOn(disk, service)).generation.start();
    service.put('later-dek', id);
    const next = await startOn(disk, service);
    await next.generation.start();
    await next.generation.advance();
    expect([service.listings, await next.lost.list()]).toEqual([1, ['b', 'c']]);
  });

  it('does not look without a take-over, and writes nothing when no project is lost', async () => {
    const [disk, service] = [await newDisk('a'), newService()];
    const { generation, id } = await startOn(disk, service);
    await generation.start();
    expect(service.listings).toBe(0);
    service.put('a-dek', id);
    service.takeOverStorage(id);
    await (await startOn(disk, service)).generation.start();
    expect([service.listings, [...disk.files().keys()].includes(FILE)]).toEqual([1, false]);
  });

  it('leaves out deleted and moved projects, and those with anything in their folder', async () => {
    const { disk, service, id } = await taken();
    for (const name of ['intended', 'shredded', 'moved', 'marked', 'other']) service.put(`${name}-dek`, id);
    const acting = { storage: id, generation: '00000000-0000-4000-8000-000000000000' };
    service.storages.set(id, { generation: acting.generation, takenOverMs: 0 });
    await service.intendDeletion('intended-dek', '', acting);
    service.destroy('shredded-dek');
    service.takeOverKey('moved-dek', '11111111-1111-4111-8111-111111111111');
    service.takeOverStorage(id);
    for (const [folder, file] of [
      ['marked', 'deleted.json'],
      ['other', 'catalog'],
    ]) {
      await disk.makeDirectory(`/data/projects/${folder}`);
      await disk.createFile(`/data/projects/${folder}/${file}`, Buffer.from('{}'));
    }
    await disk.makeDirectory('/data/projects/c');
    await disk.makeDirectory('/data/projects/c/docs');
    const { generation, lost } = await startOn(disk, service);
    await generation.start();
    expect(await lost.list()).toEqual(['b', 'c']);
  });

  it('is not confirmed while BunKMS does not list the keys, and marks them later', async () => {
    const { disk, service } = await taken();
    const down = new AppError('kms_unavailable', { retryAfterS: 1 });
    service.afterListing = Promise.reject(down);
    service.afterListing.catch(() => undefined);
    const cut = await startOn(disk, service);
    void cut.generation.start();
    await settle();
    expect([cut.generation.state, (await cut.identity.read()).takenOverMs]).toEqual(['unconfirmed', 0]);
    await cut.generation[Symbol.asyncDispose]();
    service.afterListing = undefined;
    const next = await startOn(disk, service);
    await next.generation.start();
    expect([next.generation.state, await next.lost.list()]).toEqual(['confirmed', ['b', 'c']]);
  });

  it('is also the first start of the service after a command that acted for the storage', async () => {
    const { disk, service } = await taken();
    await startStorage(await identifyFolder(disk, '/data'), service);
    const { generation, lost } = await startOn(disk, service);
    await generation.start();
    expect([generation.state, await lost.list()]).toEqual(['confirmed', ['b', 'c']]);
  });

  it('is confirmed only after its marks are durable, whenever the power is cut', async () => {
    for (let operation = 1; ; operation++)
      for (const when of ['before', 'after'] as const)
        for (const survival of ['synced only', 'everything'] as const) {
          const { disk, service } = await taken();
          const cut = await startOn(disk, service);
          const before = disk.operations;
          disk.failAt({ operation, when, what: 'crash' });
          void cut.generation.start();
          await settle();
          if (disk.operations - before < operation) {
            expect(operation).toBeGreaterThan(6);
            return;
          }
          const after = disk.powerCut(survival);
          const place = `${when} ${operation}, ${survival}`;
          // A storage that counts the take-over has the marks.
          const stored = await (await identifyFolder(after, '/data')).read();
          const marks = after.files().has(FILE);
          if (stored.takenOverMs > 0) expect(marks, place).toBe(true);
          const next = await startOn(after, service);
          await next.generation.start();
          expect([next.generation.state, await next.lost.list()], place).toEqual(['confirmed', ['b', 'c']]);
          await cut.generation[Symbol.asyncDispose]();
        }
  });

  it('adds to earlier marks, and counts only another take-over', async () => {
    const { disk, service, id } = await taken();
    const first = await startOn(disk, service);
    await first.generation.start();
    await first.lost.accept(['b']);
    service.put('d-dek', id);
    service.takeOverStorage(id);
    const next = await startOn(disk, service);
    await next.generation.start();
    expect(await next.lost.list()).toEqual(['b', 'c', 'd']);
  });
});

describe('the lost projects of a data folder', () => {
  const open = (disk: SimulatedDisk) =>
    LostInFolder.open({
      disk,
      dataDir: '/data',
      projectsDir: '/data/projects',
      tmp: '/data/tmp',
    });

  it('end when they are accepted, durably, and when they arrive', async () => {
    const disk = await newDisk('a');
    const lost = await open(disk);
    await lost.mark(['c', 'b', 'd']);
    await lost.accept(['d']);
    expect([lost.count, await lost.list(), lost.has('d')]).toEqual([2, ['b', 'c'], false]);
    const later = disk.powerCut('synced only');
    await addProject(later, 'b');
    const next = await open(later);
    expect([next.count, await next.list()]).toEqual([1, ['c']]);
    // Their marks do not come back when they leave again.
    await later.removeTree('/data/projects/b');
    expect((await open(later)).has('b')).toBe(false);
  });

  it('are the ones from before or after a change, whenever the power is cut', async () => {
    for (let operation = 1; ; operation++) {
      const disk = await newDisk();
      const lost = await open(disk);
      await lost.mark(['b', 'c']);
      disk.failAt({ operation, when: 'after', what: 'crash' });
      const isCut = await lost.accept(['b']).then(
        () => false,
        () => true,
      );
      if (!isCut) break;
      for (const survival of ['synced only', 'everything'] as const)
        expect((await (await open(disk.powerCut(survival))).list()).join()).toMatch(/^(b,)?c$/);
    }
  });

  it.each(['', '{}', '{"format":2,"projects":[]}', '{"format":1,"projects":["../x"]}'])(
    'prevent the start when their file is damaged: %s',
    async (text) => {
      const disk = await newDisk();
      await disk.createFile(FILE, Buffer.from(text));
      await expect(open(disk)).rejects.toMatchObject({
        name: 'StartRefused',
        message: expect.stringMatching(/lost-projects\.json is damaged.*remove it, which accepts their loss/),
      });
    },
  );

  it('take 10,000 marks in one file, and one look at each folder', async () => {
    const disk = await newDisk('a');
    const names = Array.from({ length: 10_000 }, (_, n) => `p${n}`);
    const lost = await open(disk);
    await lost.mark(await lost.absent(['a', ...names]));
    expect((await (await open(disk.powerCut('synced only'))).list()).length).toBe(10_000);
  });
});

import { randomUUID } from 'node:crypto';
import { Writable } from 'node:stream';
import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { StorageKeys } from '../../kms/storage-keys.ts';
import { FakeKeyService } from '../../testing/fake-key-service.ts';
import { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { identifyFolder } from '../files/identity-in-folder.ts';
import { advanceStorage } from './started-storage.ts';
import { newStorageFile, type StorageFile, type StorageIdentity } from './storage-file.ts';
import { StorageGeneration } from './storage-generation.ts';

const DOWN = new AppError('kms_unavailable', { retryAfterS: 2 });

/** A row that several nodes write to. */
class SharedIdentity implements StorageIdentity {
  file: StorageFile = newStorageFile();
  read = async () => this.file;
  change = async (change: (present: StorageFile) => StorageFile) => {
    this.file = change(this.file);
    return this.file;
  };
  ageS = async () => 0;
}

/** The same, of one node: holds its changes up, each in its turn. */
class SteppedIdentity implements StorageIdentity {
  readonly #shared: StorageIdentity;
  steps: { before?: Promise<void> | undefined; after?: Promise<void>; onBegin?: () => void }[] = [];
  constructor(shared: StorageIdentity) {
    this.#shared = shared;
  }
  read = () => this.#shared.read();
  change = async (change: (present: StorageFile) => StorageFile) => {
    const { before, after, onBegin } = this.steps.shift() ?? {};
    onBegin?.();
    await before;
    const file = await this.#shared.change(change);
    await after;
    return file;
  };
  ageS = () => this.#shared.ageS();
}

/** A process on a storage. Its pauses last as long as the test lets them. */
function startOn(identity: StorageIdentity, id: string, service: FakeKeyService) {
  const pauses: { ms: number; over: () => void }[] = [];
  const told = { confirmed: 0, superseded: 0 };
  const lines: string[] = [];
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  const generation = new StorageGeneration({
    id,
    identity,
    calls: service,
    kmsUrl: 'http://kms:8082',
    outage: async () => service.failure,
    logger: createLogger({ service: 'bundoc', level: 'info', destination }),
    onConfirmed: () => told.confirmed++,
    onSuperseded: () => told.superseded++,
    pause: (ms, signal) =>
      new Promise((resolve, reject) => {
        pauses.push({ ms, over: resolve });
        signal.addEventListener('abort', reject);
      }),
  });
  const codeOf = () => {
    try {
      return generation.acting() && 'served';
    } catch (error) {
      return (error as AppError).code;
    }
  };
  /** Ends the present pause, and lets what follows it happen. */
  const goOn = async () => {
    pauses.at(-1)?.over();
    await settle();
  };
  return { generation, pauses, told, codeOf, goOn, logged: () => lines.join('') };
}
const settle = async () => {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function startOnFolder(disk: SimulatedDisk, service: FakeKeyService) {
  const identity = await identifyFolder(disk, '/data');
  const { id } = await identity.read();
  return { identity, id, ...startOn(identity, id, service) };
}

const newDisk = () => new SimulatedDisk('/', '/data');
const newGate = () => Promise.withResolvers<void>();
const newService = () => new FakeKeyService(new FakeClock());

describe('the generation of a storage', () => {
  it('is new for each start, and BunKMS confirms it before anything is served', async () => {
    const [disk, service] = [newDisk(), newService()];
    const seen = new Set<string>();
    for (let n = 0; n < 3; n++) {
      const { generation, codeOf, told, identity, id } = await startOnFolder(disk, service);
      expect(codeOf()).toBe('kms_unavailable');
      await generation.start();
      expect([codeOf(), told]).toEqual(['served', { confirmed: 1, superseded: 0 }]);
      const { generation: current } = generation.acting();
      expect(service.storages.get(id)?.generation).toBe(current);
      expect(await identity.read()).toMatchObject({ generation: current, candidates: [] });
      seen.add(current);
    }
    expect(seen.size).toBe(3);
  });

  it('is confirmed as soon as BunKMS answers, whichever service starts first', async () => {
    const service = newService();
    service.failure = DOWN;
    const { generation, codeOf, goOn, identity, logged } = await startOnFolder(newDisk(), service);
    void generation.start();
    await settle();
    for (let n = 0; n < 20; n++) await goOn();
    expect(codeOf()).toBe('kms_unavailable');
    const waiting =
      'waiting for BunKMS at http://kms:8082 (BUNDOC_KMS_URL; see bundoc doctor): kms_unavailable';
    const lines = logged().trim().split('\n');
    // Once while BunKMS may be starting, too, then as a warning, which the logger repeats once a minute.
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: 'info', msg: waiting },
      { level: 'warn', msg: waiting, url: 'http://kms:8082' },
    ]);
    // Nothing that BunKMS may have is pushed out of the file meanwhile.
    expect((await identity.read()).candidates).toEqual([]);
    service.failure = undefined;
    await goOn();
    expect(codeOf()).toBe('served');
  });

  it('is found again by BunKMS after an answer was lost, in the same process or the next', async () => {
    const [disk, service] = [newDisk(), newService()];
    const first = await startOnFolder(disk, service);
    service.unanswered.add('advanceStorage');
    void first.generation.start();
    await settle();
    expect(first.codeOf()).toBe('kms_unavailable');
    const next = await startOnFolder(disk.powerCut('synced only'), service);
    await next.generation.start();
    expect(next.codeOf()).toBe('served');
    service.unanswered.add('advanceStorage');
    const third = await startOnFolder(disk.powerCut('synced only'), service);
    void third.generation.start();
    await settle();
    expect(third.codeOf()).not.toBe('served');
  });

  it('is durable before BunKMS gets it, so a storage starts again after a power cut at any step', async () => {
    for (let operation = 1; ; operation++)
      for (const when of ['before', 'after'] as const) {
        const [disk, service] = [newDisk(), newService()];
        await (await startOnFolder(disk, service)).generation.start();
        const before = disk.operations;
        disk.failAt({ operation, when, what: 'crash' });
        const cut = await startOnFolder(disk, service);
        void cut.generation.start();
        await settle();
        if (disk.operations - before < operation) {
          expect(operation).toBeGreaterThan(4);
          return;
        }
        const next = await startOnFolder(disk.powerCut('synced only'), service);
        await next.generation.start();
        expect(next.codeOf(), `${when} ${operation}`).toBe('served');
        await cut.generation[Symbol.asyncDispose]();
      }
  });

  it('a storage is refused and stops once a copy of it was started', async () => {
    const [disk, service] = [newDisk(), newService()];
    const former = await startOnFolder(disk, service);
    await former.generation.start();
    const copy = await startOnFolder(disk.powerCut('everything'), service);
    await copy.generation.start();
    expect([former.codeOf(), copy.codeOf()]).toEqual(['served', 'served']);
    service.put('p-dek', former.id);
    const acting = former.generation.acting();
    await expect(service.exportKey('p-dek', undefined, acting)).rejects.toMatchObject({
      code: 'storage_superseded',
    });
    await expect(former.generation.refused(acting)).rejects.toMatchObject({
      code: 'storage_superseded',
      storage: former.id,
    });
    expect(former.told.superseded).toBe(1);
    expect([former.codeOf(), copy.codeOf()]).toEqual(['storage_superseded', 'served']);
    // It does not come back by itself.
    for (let n = 0; n < 3; n++) await former.goOn();
    expect(former.codeOf()).toBe('storage_superseded');
  });

  it('an older copy of a storage is refused until an administrator names its generation', async () => {
    const [disk, service] = [newDisk(), newService()];
    await (await startOnFolder(disk, service)).generation.start();
    const older = disk.powerCut('everything');
    await (await startOnFolder(disk, service)).generation.start();
    const restored = await startOnFolder(older, service);
    await restored.generation.start();
    expect(restored.codeOf()).toBe('storage_superseded');
    const [candidate] = (await restored.identity.read()).candidates;
    let detail: string | undefined;
    try {
      restored.generation.acting();
    } catch (error) {
      ({ detail } = error as AppError);
    }
    expect(detail).toContain('let an administrator take over (the log has the command)');
    expect(detail).not.toContain(candidate);
    expect(restored.logged()).toContain(`bunkms storage take-over ${restored.id} --generation ${candidate}`);
    service.takeOverStorage(restored.id, candidate);
    await restored.goOn();
    const { takenOverMs } = service.storages.get(restored.id)!;
    expect(takenOverMs).toBeGreaterThan(0);
    expect([restored.codeOf(), restored.generation.takenOverMs]).toEqual(['served', takenOverMs]);
    expect((await restored.identity.read()).takenOverMs).toBe(takenOverMs);
  });

  it('a storage without its generation file is served, and is unavailable only for what needs the file', async () => {
    const [disk, service] = [newDisk(), newService()];
    const { generation, codeOf, id } = await startOnFolder(disk, service);
    await generation.start();
    await disk.remove('/data/storage.json');
    await expect(generation.advance()).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(codeOf()).toBe('served');
    service.takeOverStorage(id);
    const refused = generation.refused(generation.acting());
    await expect(refused).rejects.toMatchObject({ code: 'storage_unavailable' });
  });

  it('the generation of a storage has the last take-over that BunKMS knows, whatever its file says', async () => {
    const [disk, service] = [newDisk(), newService()];
    const { identity, id } = await startOnFolder(disk, service);
    await identity.change((file) => ({ ...file, takenOverMs: Number.MAX_SAFE_INTEGER }));
    const { generation, codeOf } = startOn(identity, id, service);
    await generation.start();
    expect([codeOf(), generation.takenOverMs, (await identity.read()).takenOverMs]).toEqual(['served', 0, 0]);
  });

  it('a storage ends when BunKMS says that another copy may take over, and lets that one in first', async () => {
    const [disk, service] = [newDisk(), newService()];
    const former = await startOnFolder(disk, service);
    await former.generation.start();
    service.takeOverStorage(former.id);
    former.generation.tookOver(undefined);
    await settle();
    expect([former.codeOf(), former.told.superseded]).toEqual(['storage_superseded', 1]);
    const waiting = await startOnFolder(disk.powerCut('everything'), service);
    await waiting.generation.start();
    expect([waiting.codeOf(), former.pauses.map(({ ms }) => ms)]).toEqual(['served', [15_000]]);
    await former.goOn();
    expect(former.codeOf()).toBe('storage_superseded');
  });

  it('a copy that was let in is served, even if the event of its take-over arrives after its start', async () => {
    const [disk, service] = [newDisk(), newService()];
    const former = await startOnFolder(disk, service);
    await former.generation.start();
    service.takeOverStorage(former.id);
    const copy = await startOnFolder(disk.powerCut('everything'), service);
    await copy.generation.start();
    copy.generation.tookOver(undefined);
    await settle();
    expect([copy.codeOf(), copy.told.superseded]).toEqual(['served', 0]);
    former.generation.tookOver(undefined);
    await settle();
    expect(former.codeOf()).toBe('storage_superseded');
  });

  it('a storage whose generation a take-over names is served, even if the event names an earlier generation', async () => {
    const [disk, service] = [newDisk(), newService()];
    const { generation, codeOf, id } = await startOnFolder(disk, service);
    await generation.start();
    const { generation: former } = generation.acting();
    service.takeOverStorage(id, former);
    generation.tookOver(former);
    await generation.advance();
    expect([codeOf(), generation.takenOverMs]).toEqual(['served', service.storages.get(id)!.takenOverMs]);
    expect(generation.takenOverMs).toBeGreaterThan(0);
    generation.tookOver(former);
    await settle();
    expect(codeOf()).toBe('served');
  });

  it('a storage ends when an event names the generation of another copy, even if BunKMS does not answer', async () => {
    for (const failure of [undefined, DOWN]) {
      const [disk, service] = [newDisk(), newService()];
      const former = await startOnFolder(disk, service);
      await former.generation.start();
      const copy = await startOnFolder(disk.powerCut('everything'), service);
      await copy.generation.start();
      service.failure = failure;
      former.generation.tookOver(copy.generation.acting().generation);
      await settle();
      expect([former.codeOf(), former.told.superseded]).toEqual(['storage_superseded', 1]);
    }
  });

  it('a request with an earlier generation has no effect after the storage has advanced', async () => {
    const service = newService();
    const { generation, id } = await startOnFolder(newDisk(), service);
    await generation.start();
    service.put('p-dek', id);
    const former = generation.acting();
    await generation.advance();
    await expect(service.intendDeletion('p-dek', '', former)).rejects.toMatchObject({
      code: 'storage_superseded',
    });
    expect(await new StorageKeys(service, generation).intendDeletion('p-dek', '')).toMatchObject({
      name: 'p-dek',
    });
  });
});

describe('the generation that several nodes share', () => {
  const nodesOf = (service: FakeKeyService, count: number) => {
    const identity = new SharedIdentity();
    const nodes = Array.from({ length: count }, () => startOn(identity, identity.file.id, service));
    return { identity, nodes };
  };
  const serves = async (service: FakeKeyService, { generation }: { generation: StorageGeneration }) => {
    await new StorageKeys(service, generation).exportKey('p-dek');
  };

  it('a command advances the generation beside the nodes, follows a faster node, and refuses a copy', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 1);
    const [{ generation }] = nodes as [ReturnType<typeof startOn>];
    await generation.start();
    let overtaken = 3;
    const calls: Pick<FakeKeyService, 'advanceStorage'> = {
      advanceStorage: async (...of) => {
        if (overtaken-- > 0) await generation.advance();
        return service.advanceStorage(...of);
      },
    };
    const copied = new SharedIdentity();
    copied.file = identity.file;
    const { acting } = await advanceStorage(identity, calls);
    expect([overtaken, acting.generation]).toEqual([-1, identity.file.generation]);
    expect(service.storages.get(acting.storage)?.generation).toBe(acting.generation);
    await expect(advanceStorage(copied, service)).rejects.toMatchObject({ code: 'storage_superseded' });
    expect(service.storages.get(acting.storage)?.generation).toBe(acting.generation);
  });

  it('a node follows the generation together with a take-over that only another node knows of', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 2);
    service.put('p-dek', identity.file.id);
    for (const { generation } of nodes) await generation.start();
    const [first, second] = nodes;
    service.takeOverStorage(identity.file.id, identity.file.generation);
    await first!.generation.advance();
    const { takenOverMs } = service.storages.get(identity.file.id)!;
    expect(takenOverMs).toBeGreaterThan(0);
    await serves(service, second!);
    expect(nodes.map(({ generation }) => generation.takenOverMs)).toEqual([takenOverMs, takenOverMs]);
  });

  it('each node that starts advances the generation, together or one after another, and all stay in service', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 5);
    service.put('p-dek', identity.file.id);
    await Promise.all(nodes.slice(0, 3).map(({ generation }) => generation.start()));
    for (const { generation } of nodes.slice(3)) await generation.start();
    for (const node of nodes) await serves(service, node);
    await nodes[0]?.generation.advance();
    // Each node learns of it, and finds it recorded.
    for (const { generation } of nodes) generation.tookOver(identity.file.generation);
    await settle();
    for (const node of nodes) await serves(service, node);
    expect(nodes.map(({ codeOf, told }) => [codeOf(), told.superseded])).toEqual(
      nodes.map(() => ['served', 0]),
    );
  });

  it.each(['former', 'latter'])(
    'is known to all when two advance it together, and the confirmation of the %s comes late',
    async (late) => {
      const service = newService();
      const identity = new SharedIdentity();
      service.put('p-dek', identity.file.id);
      const [latterConfirms, formerConfirms, isLate] = [newGate(), newGate(), newGate()];
      const former = new SteppedIdentity(identity);
      const latter = new SteppedIdentity(identity);
      const nodes = [former, latter].map((one) => startOn(one, identity.file.id, service));
      for (const { generation } of nodes) await generation.start();
      // The former notes first, and BunKMS hears of the latter first. So the former asks again, and confirms
      // in its third step.
      const [first, last] = late === 'former' ? [isLate, formerConfirms] : [undefined, isLate];
      former.steps = [
        ...[{ after: latterConfirms.promise }, {}],
        { onBegin: formerConfirms.resolve, before: first?.promise },
      ];
      latter.steps = [{}, { onBegin: latterConfirms.resolve, before: last.promise }];
      const advanced = nodes.map(({ generation }) => generation.advance());
      await settle();
      isLate.resolve();
      await Promise.all(advanced);
      expect(identity.file.generation).toBe(service.storages.get(identity.file.id)?.generation);
      nodes.push(startOn(identity, identity.file.id, service));
      await nodes[2]?.generation.start();
      for (const node of nodes) {
        await serves(service, node);
        await node.generation.advance();
      }
      expect(nodes.map(({ codeOf, told }) => [codeOf(), told.superseded])).toEqual(
        nodes.map(() => ['served', 0]),
      );
    },
  );

  it('nodes serve while one of them advances the generation and BunKMS answers nobody else', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 3);
    for (const { generation } of nodes) await generation.start();
    await nodes[0]?.generation.advance();
    service.failure = DOWN;
    for (const { generation } of nodes) generation.tookOver(identity.file.generation);
    await settle();
    expect(nodes.map(({ codeOf, told }) => [codeOf(), told.superseded])).toEqual(
      nodes.map(() => ['served', 0]),
    );
  });

  it('the row of the generation does not fill with candidates while nodes of an older copy ask repeatedly', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 1);
    await nodes[0]?.generation.start();
    const copy = new SharedIdentity();
    copy.file = structuredClone(identity.file);
    await nodes[0]?.generation.advance();
    const refused = [startOn(copy, copy.file.id, service), startOn(copy, copy.file.id, service)];
    await Promise.all(refused.map(({ generation }) => generation.start()));
    for (let n = 0; n < 20; n++) for (const { goOn } of refused) await goOn();
    expect(refused.map(({ codeOf }) => codeOf())).toEqual(['storage_superseded', 'storage_superseded']);
    expect(copy.file.candidates).toHaveLength(2);
    // Both continue, whichever of the two an administrator names.
    service.takeOverStorage(copy.file.id, copy.file.candidates[1]);
    for (const { goOn } of refused) await goOn();
    expect(refused.map(({ codeOf }) => codeOf())).toEqual(['served', 'served']);
  });

  it('a node finds the generation again after another one died before it recorded the answer of BunKMS', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 2);
    service.put('p-dek', identity.file.id);
    for (const { generation } of nodes) await generation.start();
    const candidate = randomUUID();
    const { generation: former } = identity.file;
    await identity.change((file) => ({ ...file, candidates: [candidate] }));
    await service.advanceStorage(identity.file.id, [String(former)], candidate);
    for (const node of nodes) await serves(service, node);
    expect(identity.file.candidates).toEqual([]);
  });

  it('a copy of the database in use is refused at the latest when a node advances its generation', async () => {
    const service = newService();
    const { identity, nodes } = nodesOf(service, 1);
    await nodes[0]?.generation.start();
    const copy = new SharedIdentity();
    copy.file = structuredClone(identity.file);
    const other = startOn(copy, copy.file.id, service);
    await other.generation.start();
    await expect(nodes[0]?.generation.advance()).rejects.toMatchObject({ code: 'storage_superseded' });
    expect([nodes[0]?.codeOf(), other.codeOf()]).toEqual(['storage_superseded', 'served']);
  });
});

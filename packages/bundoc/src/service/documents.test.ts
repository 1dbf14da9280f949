import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { readDocumentBody } from '../crypto/stored-text.ts';
import type { ProjectStore } from '../engine/port/port.ts';
import { ProjectInFiles } from '../testing/project-in-files.ts';
import { ownWork } from '../work/scheduler.ts';
import { Documents } from './documents.ts';
import { PATCH_TRIES_MAX } from './patching.ts';

const REF = { collection: 'notes', id: 'a' };
const OPTIONS = { work: ownWork('p')('patch') };
const MERGE = { kind: 'merge', bytes: Buffer.from('{"patched":true}') } as const;

/**
 * A document store on a real engine. Before each commit of a patch, another writer overwrites the document,
 * up to `overwrites` times in total.
 */
async function withRivals(overwrites: number) {
  const disk = ProjectInFiles.disk();
  const project = new ProjectInFiles();
  await project.create(disk);
  const store = await project.open(disk);
  const overwrite = (n: number) =>
    store.commit([
      {
        kind: 'put',
        ref: REF,
        content: readDocumentBody(Buffer.from(`{"n":${n}}`)).content,
        precondition: { kind: 'none' },
      },
    ]);
  await overwrite(0);
  let done = 0;
  const contested: ProjectStore = Object.assign(Object.create(store) as ProjectStore, {
    commit: async (...args: Parameters<ProjectStore['commit']>) => {
      if (done < overwrites) await overwrite(++done);
      return await store.commit(...args);
    },
    get: (ref: typeof REF) => store.get(ref),
  });
  const lease = { store: contested, [Symbol.dispose]: () => undefined };
  const instances = { acquire: async () => lease, peekStore: () => undefined, leaseIfOpen: () => undefined };
  const documents = new Documents(instances as never, { documentBytesMax: 1_000 });
  return { store, documents, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() };
}

describe('a patch without a precondition', () => {
  it('is applied again to the revision that another writer has committed meanwhile', async () => {
    await using rivals = await withRivals(3);
    await rivals.documents.patch('p', REF, MERGE, { kind: 'none' }, OPTIONS);
    expect((await rivals.store.get(REF))?.text.toString()).toMatch(/,"n":3,"patched":true\}$/);
  });

  it('gives up with 503 when the document keeps changing, and changes nothing', async () => {
    await using rivals = await withRivals(Number.POSITIVE_INFINITY);
    await expect(rivals.documents.patch('p', REF, MERGE, { kind: 'present' }, OPTIONS)).rejects.toMatchObject(
      {
        code: 'overloaded',
      },
    );
    expect((await rivals.store.get(REF))?.text.toString()).toMatch(new RegExp(`,"n":${PATCH_TRIES_MAX}\\}$`));
  });
});

describe('a patch of a given revision', () => {
  it('does not apply to a later revision', async () => {
    await using rivals = await withRivals(1);
    const rev = String((await rivals.store.get(REF))?.metadata._rev);
    await expect(
      rivals.documents.patch('p', REF, MERGE, { kind: 'revision', anyOf: [rev] }, OPTIONS),
    ).rejects.toMatchObject({ code: 'precondition_failed' });
    expect((await rivals.store.get(REF))?.text.toString()).toMatch(/,"n":1\}$/);
  });
});

describe('a read of a document that is not in memory', () => {
  it('asks the open store once, and holds the project until it has the document', async () => {
    const asked: object[] = [];
    const stored = Promise.withResolvers<object>();
    let held = 0;
    const lease = () => {
      held++;
      return { [Symbol.dispose]: () => void held-- };
    };
    const store = {
      get: (ref: object) => {
        asked.push(ref);
        return stored.promise;
      },
    };
    const instances = {
      peekStore: () => store,
      leaseIfOpen: lease,
      acquire: () => expect.unreachable('the project is open'),
    };
    const documents = new Documents(instances as never, { documentBytesMax: 1_000 });
    const read = documents.read('p', REF);
    await setImmediate();
    expect(held).toBe(1);
    const document = { text: Buffer.from('{}') };
    stored.resolve(document);
    expect(await read).toBe(document);
    expect([asked, held]).toEqual([[REF], 0]);
  });
});

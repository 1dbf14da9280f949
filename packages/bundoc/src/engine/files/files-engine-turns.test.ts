import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Process } from '../../testing/files-process.ts';
import { put, ref } from '../../testing/writes.ts';
import { describeProjectStore } from '../conformance/conformance.ts';
import type { WriteResult } from '../port/port.ts';
import type { FileStore } from './store/file-store.ts';

describe('projects that take turns', () => {
  const NEIGHBOURS = 500;
  let process = new Process();
  let made: Promise<unknown> | undefined;
  let open = new Map<string, FileStore>();
  let turn = 0;
  let tests = 0;

  /** The next few of the others write, each a document that says whose it is. */
  async function neighboursWrite(): Promise<void> {
    const next = Array.from({ length: 5 }, () => `n${turn++ % NEIGHBOURS}`);
    await Promise.all(
      next.map(async (project) => {
        const store = open.get(project) ?? (await process.open(project));
        open.set(project, store);
        await store.commit([put('a', `{"of":"${project}","turn":${turn}}`)]);
      }),
    );
  }

  function beside(store: FileStore): FileStore {
    const { commit } = store;
    return Object.assign(store, {
      commit: async (...args: Parameters<FileStore['commit']>) => {
        // Ends after both, also after a refusal: the last test compares what is written with what is read.
        const outcomes = await Promise.allSettled([commit.apply(store, args), neighboursWrite()]);
        for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
        return (outcomes[0] as PromiseFulfilledResult<readonly WriteResult[]>).value;
      },
    });
  }

  describeProjectStore(`An FileStore beside ${NEIGHBOURS} others`, async () => {
    made ??= Promise.all(Array.from({ length: NEIGHBOURS }, (_, n) => process.create(`n${n}`)));
    await made;
    const project = `test-${tests++}`;
    await process.create(project);
    return {
      store: beside(await process.open(project)),
      reopen: async () => {
        process = process.after('synced only');
        open = new Map();
        return beside(await process.open(project));
      },
    };
  });

  it('each have their last write after a power cut', async () => {
    await setImmediate();
    const later = process.after('synced only');
    for (const [project, store] of open) {
      const there = await later.open(project);
      expect((await there.get(ref('a')))?.text).toEqual((await store.get(ref('a')))?.text);
      expect((await there.get(ref('a')))?.text.toString()).toContain(`"of":"${project}"`);
    }
    expect([open.size > 50, process.failures, later.failures]).toEqual([true, [], []]);
  });
});

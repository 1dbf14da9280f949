import { createLogger } from '@bundoc/shared/logs/logger';
import { needs } from '@bundoc/shared/testing/programs';
import { PATIENT_MS, startInBackground } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import type { ProjectStore } from '../src/engine/port/port.ts';
import { CommitPolls } from '../src/engine/postgres/commit-polls.ts';
import { commitOne, put } from '../src/testing/writes.ts';
import { database, newProject, textOf, usePostgresEngine } from './support/postgres-engine.ts';

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  describe('several nodes of one project', () => {
    it('enforce a quota exactly, together', async () => {
      const project = await newProject({ quota: { documentsMax: 25, bytesMax: 0 } });
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const outcomes = await Promise.allSettled(
        Array.from({ length: 60 }, (_, n) => (nodes[n % 3] as ProjectStore).commit([put(`d${n}`, '{}')])),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(25);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'quota_exceeded' });
      for (const node of nodes) await node[Symbol.asyncDispose]();
    });

    it("see each other's acknowledged writes and give each change one place in the order", async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const seen: string[] = [];
      let position = 0;
      let isWriting = true;
      const reading = startInBackground(
        (async () => {
          const node = nodes[0] as ProjectStore;
          for (let last = false; !last; ) {
            last = !isWriting;
            const page = await node.changes(position, 10);
            seen.push(...page.changes.map(({ ref: { id } }) => id));
            position = page.position;
          }
        })(),
      );
      const ids = Array.from({ length: 300 }, (_, n) => `doc-${n}`);
      await Promise.all(
        ids.map(async (id, n) => {
          await commitOne(nodes[n % 3] as ProjectStore, put(id, `{"n":${n}}`, { kind: 'absent' }));
          expect(await textOf(nodes[(n + 1) % 3] as ProjectStore, id)).toContain(`"n":${n}`);
        }),
      );
      isWriting = false;
      await reading;
      for (;;) {
        const page = await (nodes[1] as ProjectStore).changes(position, 100);
        if (page.changes.length === 0) break;
        seen.push(...page.changes.map(({ ref: { id } }) => id));
        position = page.position;
      }
      expect(seen.length).toBe(ids.length);
      expect(new Set(seen)).toEqual(new Set(ids));
    });

    it('let exactly one of many writers succeed in a compare-and-set', async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const { metadata } = await commitOne(nodes[0] as ProjectStore, put('a', '{"v":0}'));
      const precondition = { kind: 'revision', anyOf: [String(metadata?._rev)] } as const;
      const outcomes = await Promise.allSettled(
        Array.from({ length: 30 }, (_, n) =>
          commitOne(nodes[n % 3] as ProjectStore, put('a', `{"v":${n}}`, precondition)),
        ),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    });

    it('write once under one idempotency key', async () => {
      const project = await newProject();
      const nodes = await Promise.all([1, 2, 3].map(() => project.open(database)));
      const idempotency = { key: 'a'.repeat(32), request: 'b'.repeat(32) };
      const all = await Promise.all(
        Array.from({ length: 12 }, (_, n) =>
          (nodes[n % 3] as ProjectStore).commit([put('a', '{}')], { idempotency }),
        ),
      );
      expect(new Set(all.map(([result]) => result?.metadata?._rev)).size).toBe(1);
    });
  });

  it('notices a commit of another node while it waits for a change', async () => {
    const project = await newProject();
    await using news = new CommitPolls(database, createLogger({ service: 'bundoc', level: 'silent' }));
    const [reader, writer] = [await project.open(database, news), await project.open(database)];
    const signal = AbortSignal.timeout(PATIENT_MS);
    for (let n = 1; n <= 3; n++) {
      const waiting = reader.waitForChange(n - 1, signal);
      await commitOne(writer, put('a', `{"n":${n}}`));
      expect(await waiting).toBe(n);
    }
    for (const store of [reader, writer]) await store[Symbol.asyncDispose]();
  });
});

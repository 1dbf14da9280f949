import { randomInt } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { put, remove } from '../src/testing/writes.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import { ask } from './support/ordered-queries.ts';
import {
  close,
  findings,
  hasty,
  NONE,
  newProject,
  openOn,
  SMALL,
  server,
  settled,
  sql,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

/** Messages that a node sends more than in the run before, until it dies. */
const STEP = runs(9, 1);
const FIRST = Number(process.env['CRASH_AT'] ?? randomInt(STEP));
const DOCUMENTS = 9;
const INDEXES = { indexes: [['n'], ['g', 'n']].map((fields) => ({ fields, unique: false })) };

const write = (store: DefinedStore, shift: number) =>
  store.commit(
    Array.from({ length: DOCUMENTS }, (_, at) =>
      put(`d${at}`, `{"n":${(5 * at + shift) % DOCUMENTS},"g":1}`),
    ),
  );

/** A node behind a proxy that dies, and another one. */
interface Pair {
  readonly project: PostgresProject;
  readonly dying: DefinedStore;
  readonly other: DefinedStore;
}

/** What a node does until it dies, and what must be done before. */
interface Work {
  prepare(pair: Pair): Promise<unknown>;
  run(pair: Pair): Promise<unknown>;
}

const keep = async (store: DefinedStore) => {
  await store.load();
  await store.indexes?.built();
};
const prepared = async ({ other, dying }: Pair) => {
  await write(other, 0);
  await other.define('notes', INDEXES, NONE);
  await settled(other);
  await keep(dying);
};
/** Each run that no index has is as old as one that nobody reads. */
const age = (project: string) =>
  sql(`UPDATE bundoc.index_runs SET left_at = now() - interval '2 hours' WHERE project = '${project}' AND left_at IS NOT NULL;
       UPDATE bundoc.indexes SET worked_until = '-infinity' WHERE project = '${project}'`);

const WORKS: Readonly<Record<string, Work>> = {
  'a definition and a build': {
    prepare: ({ other }) => write(other, 0),
    run: async ({ dying }) => {
      await dying.define('notes', INDEXES, NONE);
      await dying.indexes?.built();
    },
  },
  'merges, and the removal of runs that were left': {
    prepare: async (pair) => {
      await prepared(pair);
      await write(pair.other, 1);
      await settled(pair.other);
      // A node that writes looks at the tails.
      await write(pair.dying, 2);
      await pair.dying.commit([remove('d0')]);
      await age(pair.project.project);
    },
    run: ({ dying }) => keep(dying),
  },
  'the removal of indexes': {
    prepare: prepared,
    run: async ({ dying }) => {
      await dying.define('notes', undefined, NONE);
      await dying.indexes?.built();
    },
  },
};

describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  /** @returns whether the node died before it was done. */
  const diesAfter = async (messages: number, { prepare, run }: Work): Promise<boolean> => {
    const project = await newProject({ clock: hasty(), orderSizes: SMALL });
    const p = `project = '${project.project}'`;
    await using proxy = await CuttingProxy.open(server.port);
    await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port), { connectTimeoutMs: 5_000 });
    const [other, dying] = [await openOn(project), await openOn(project, behind)];
    const pair = { project, dying, other };
    await prepare(pair);
    proxy.dieAfter(messages);
    await run(pair).catch(() => undefined);
    const isDead = await dying.position().then(
      () => false,
      () => true,
    );
    await dying[Symbol.asyncDispose]().catch(() => undefined);
    proxy.cutNow();

    // The other node waits for no lease, and finds whatever the dead one has left.
    await age(project.project);
    await keep(other);
    if (run !== WORKS['the removal of indexes']?.run && other.definition('notes') === undefined)
      await other.define('notes', INDEXES, NONE);
    if (run === WORKS['the removal of indexes']?.run && other.definition('notes') !== undefined)
      await other.define('notes', undefined, NONE);
    await settled(other);
    for (let round = 0; round < 3; round++) {
      await age(project.project);
      await keep(other);
    }
    const question = {
      where: '{"n":{"$gte":2}}',
      orderBy: [{ field: 'n', direction: 'desc' as const }],
      limit: 3,
    };
    const answer = await ask(other, project, question);
    const values = answer?.texts.map((text) => (JSON.parse(text) as { n: number }).n);
    expect(values).toEqual(values?.toSorted((a, b) => b - a));
    const isDefined = other.definition('notes') !== undefined;
    expect(answer).toMatchObject({ index: isDefined ? 'n' : null });
    expect(await findings(project)).toEqual([]);
    const left = await sql(`
      SELECT (SELECT count(*) FROM bundoc.index_pages WHERE ${p}) - (SELECT coalesce(sum(pages), 0) FROM bundoc.indexes WHERE ${p}),
        (SELECT count(*) FROM bundoc.index_runs WHERE ${p} AND left_at IS NOT NULL),
        (SELECT count(*) FROM bundoc.index_pages AS g WHERE ${p} AND NOT EXISTS (
          SELECT FROM bundoc.index_runs AS r WHERE r.${p} AND r.run = g.run)),
        (SELECT count(*) FROM bundoc.indexes WHERE ${p})`);
    expect(left, `after ${messages} messages`).toBe(`0|0|0|${isDefined ? 2 : 0}`);
    await close(other);
    return isDead;
  };

  for (const [name, work] of Object.entries(WORKS))
    it(
      `are finished by another node, which leaves nothing behind, wherever a node dies in ${name} (CRASH_AT=${FIRST})`,
      async () => {
        let messages = FIRST;
        while (await diesAfter(messages, work)) messages += STEP;
        expect(messages).toBeGreaterThan(20);
      },
      runs(60_000, 600_000),
    );
});

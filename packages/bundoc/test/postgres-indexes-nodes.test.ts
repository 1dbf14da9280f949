import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import { find } from '../src/engine/indexes/conformance.ts';
import type { Write } from '../src/engine/port/port.ts';
import { LOOK_UPS_MAX } from '../src/engine/postgres/commit/attempt.ts';
import type { Database, Transaction } from '../src/engine/postgres/database/database.ts';
import { openTestDatabase } from '../src/testing/postgres-project.ts';
import { commitOne, put, remove } from '../src/testing/writes.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import {
  close,
  database,
  findings,
  hasty,
  NONE,
  newProject,
  openOn,
  plain,
  server,
  settled,
  sql,
  unique,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

describe('indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  it('include every document, whichever nodes write while others redefine them', async () => {
    const project = await newProject();
    const nodes = await Promise.all([1, 2, 3].map(() => openOn(project)));
    const node = (n: number) => nodes[n % 3] as DefinedStore;
    const definitions = [
      [plain('g')],
      [plain('g'), plain('n', 'g')],
      [plain('n', 'g'), unique('u')],
      [],
      [plain('g'), unique('u')],
    ];
    let isWriting = true;
    const writing = [0, 1, 2].map(async (at) => {
      for (let n = 0; isWriting; n++) {
        const ids = [0, 1, 2].map((more) => `d${(n * 7 + at * 3 + more * 11) % 60}`);
        const writes = ids.map((id, more): Write => {
          const text = `{"g":${(n + more) % 4},"n":[${n % 3},${at}],"u":"${at}-${n}-${more}"}`;
          return (n + more) % 5 === 0 ? remove(id) : put(id, text);
        });
        await node(at)
          .commit(writes)
          .catch((error: unknown) => {
            expect(error).toMatchObject({ code: 'document_not_found' });
          });
      }
    });
    for (const [n, indexes] of definitions.entries()) {
      await node(n).define('notes', { indexes }, NONE);
      // Others learn of it late.
      if (n % 2 === 0) await node(n + 1).load();
      await commitOne(node(n + 2), put('between', `{"g":${n},"n":1,"u":"x${n}"}`));
    }
    await settled(node(0));
    isWriting = false;
    await Promise.all(writing);
    expect(await findings(project)).toEqual([]);
    const all = await node(0).list({ collection: 'notes', after: 0, limit: 100, bytesMax: 1e9 });
    for (const g of [0, 1, 2, 3]) {
      const { ids, index } = await find(node(0), `{"g":${g}}`);
      const expected = all.documents.filter(({ text }) => text.includes(`"g":${g},`));
      expect([index, ids]).toEqual(['g', expected.map(({ metadata }) => metadata._id)]);
    }
    await close(...nodes);
  });

  it('let exactly one of many nodes write a unique value', async () => {
    const project = await newProject();
    const nodes = await Promise.all([1, 2, 3].map(() => openOn(project)));
    await (nodes[0] as DefinedStore).define('notes', { indexes: [unique('u')] }, NONE);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 30 }, (_, n) => commitOne(nodes[n % 3] as DefinedStore, put(`d${n}`, '{"u":1}'))),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'unique_violation' });
    await close(...nodes);
  });

  it('are looked up a bounded number of times by a transaction, although each refusal requires another look-up', async () => {
    // All want one value, and each a second one, which a document has already: all but the one of the 60th.
    const free = 60;
    const chained = Array.from({ length: 100 }, (_, n) =>
      ['wanted', n].map((u, at) => put(`d${n}-${at}`, JSON.stringify({ u }))),
    );
    const lookUps: number[] = [];
    const counting = {
      query: database.query.bind(database),
      run: database.run.bind(database),
      transaction: (begin, action) =>
        database.transaction(begin, (transaction, begun) => {
          const at = lookUps.push(0) - 1;
          const query: Transaction['query'] = (statement, parameters) => {
            if (statement.name.startsWith('bundoc-holders')) lookUps[at] = (lookUps[at] as number) + 1;
            return transaction.query(statement, parameters);
          };
          return action({ ...transaction, query }, begun);
        }),
    } satisfies Pick<Database, 'query' | 'run' | 'transaction'>;
    const store = await openOn(await newProject(), counting as unknown as Database);
    await store.define('notes', { indexes: [unique('u')] }, NONE);
    await store.commit(
      chained.flatMap((_, n) => (n === free ? [] : [put(`held-${n}`, JSON.stringify({ u: n }))])),
    );
    const outcomes = await Promise.allSettled(chained.map((writes) => store.commit(writes)));
    expect(Math.max(...lookUps)).toBe(LOOK_UPS_MAX);
    for (const [n, outcome] of outcomes.entries())
      if (n === free) expect(outcome.status).toBe('fulfilled');
      else expect(outcome).toMatchObject({ reason: { code: 'unique_violation' } });
    expect((await find(store, '{"u":"wanted"}')).ids).toEqual([`d${free}-0`]);
    await close(store);
  });

  it('are built by another node when the first one is gone, and only once by nodes that start together', async () => {
    const project = await newProject({ clock: hasty() });
    const first = await openOn(project);
    for (let n = 0; n < 700; n += 100)
      await first.commit(
        Array.from({ length: 100 }, (_, at) => put(`d${n + at}`, `{"g":${at % 5},"u":${n + at}}`)),
      );
    await close(first);
    const proxy = await CuttingProxy.open(server.port);
    const behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const dying = await openOn(project, behind);
    proxy.cutAt('bundoc-add-tokens-1', 'before the answer');
    await dying.define('notes', { indexes: [plain('g'), unique('u')] }, NONE);
    proxy.dieAfter(12);
    await dying.indexes?.built();
    await dying[Symbol.asyncDispose]().catch(() => undefined);
    await behind[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    const nodes = await Promise.all([1, 2].map(() => openOn(project)));
    for (const node of nodes) await settled(node);
    expect(await sql(`SELECT max(indexed) FROM bundoc.indexes WHERE project = '${project.project}'`)).toBe(
      '700',
    );
    expect(await findings(project)).toEqual([]);
    expect(await find(nodes[1] as DefinedStore, '{"g":3}')).toMatchObject({ index: 'g', scanned: 140 });
    await close(...nodes);
  });

  it('are in effect once a definition was answered whose connection broke at the commit', async () => {
    const project = await newProject();
    await using proxy = await CuttingProxy.open(server.port);
    await using behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const store = await openOn(project, behind);
    await commitOne(store, put('a', '{"u":1}'));
    proxy.cutAt('bundoc-indexes-changed-1', 'before the answer');
    await store.define('notes', { indexes: [unique('u')] }, NONE);
    expect(proxy.cuts).toBe(1);
    await settled(store);
    const other = await openOn(project);
    await expect(commitOne(other, put('b', '{"u":1}'))).rejects.toMatchObject({ code: 'unique_violation' });
    expect(await sql(`SELECT count(*) FROM bundoc.indexes WHERE project = '${project.project}'`)).toBe('1');
    await close(store, other);
  });
});

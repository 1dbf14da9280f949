import { systemClock } from '@bundoc/shared/runtime/clock';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { describe, expect, it } from 'vitest';
import { type DefinedStore, openDefinedStore } from '../src/collections/defined-store.ts';
import { cursorsOf } from '../src/crypto/sealed-cursor.ts';
import { definitionRef } from '../src/engine/definition.ts';
import { describeIndexes, find } from '../src/engine/indexes/conformance.ts';
import type { Write } from '../src/engine/port.ts';
import { LOOK_UPS_MAX } from '../src/engine/postgres/commit/attempt.ts';
import type { Database, Transaction } from '../src/engine/postgres/database/database.ts';
import { SNAPSHOT_TRANSACTION, verifyRows } from '../src/engine/postgres/verify/verify-rows.ts';
import { openTestDatabase, type PostgresProject } from '../src/testing/postgres-project.ts';
import { assertQueriesAreRight, type CrashingProject } from '../src/testing/queries-property.ts';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { CuttingProxy } from './support/cutting-proxy.ts';
import { type UsedDatabase, useDatabase } from './support/use-database.ts';

const NONE = { kind: 'none' } as const;
const RUNS = Number(process.env['QUERY_RUNS'] ?? 25);
/** A node whose attempts end soon when the server is gone. */
const hasty = () => {
  let ms = 0;
  return { ...systemClock, monotonic: () => (ms += 5_000) };
};

describeWithPostgres('indexes on PostgreSQL', () => {
  let server: PostgresServer;
  let database: Database;
  let newProject: UsedDatabase['newProject'];
  useDatabase((used) => {
    ({ server, database, newProject } = used);
  });

  const openOn = async (project: PostgresProject, on = database) =>
    openDefinedStore(await project.open(on), project.clock);
  const sql = (text: string) => server.sql(text, 'bundoc');
  const blind = (...fields: string[]) => ({ fields, unique: false, blind: true });
  const unique = (...fields: string[]) => ({ fields, unique: true });
  /** The findings of `bundoc verify`, which also compares the entries with all values. */
  const findings = async (project: PostgresProject) => {
    const verified = await database.transaction(SNAPSHOT_TRANSACTION, (transaction) =>
      verifyRows(transaction, project.project, project.cipher, () => undefined),
    );
    return verified?.findings;
  };
  const close = async (...stores: DefinedStore[]) => {
    for (const store of stores) await store[Symbol.asyncDispose]();
  };
  /** Waits until no node has any work left on indexes. */
  const settled = (store: DefinedStore, collection = 'notes') =>
    expect
      .poll(async () => {
        await store.load();
        await store.indexes?.built();
        return new Set(store.indexes?.status(collection).map(({ state }) => state));
      })
      .not.toContain('building');

  describeIndexes('the PostgreSQL engine', async () => {
    const project = await newProject();
    const open = () => openOn(project);
    return { store: await open(), reopen: open };
  });

  it('change no answer of a query, after updates, deletes, re-seals and broken connections', async () => {
    const makeProject = async (): Promise<CrashingProject> => {
      const project = await newProject({ clock: hasty() });
      let proxy = await CuttingProxy.open(server.port);
      let behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
      const opened: DefinedStore[] = [];
      const stop = async () => {
        await Promise.all(
          opened.splice(0).map((store) => store[Symbol.asyncDispose]().catch(() => undefined)),
        );
        await behind[Symbol.asyncDispose]();
        await proxy[Symbol.asyncDispose]();
      };
      return {
        open: async () => {
          const store = await openOn(project, behind);
          opened.push(store);
          return store;
        },
        rotate: () => project.rotate(database),
        crashBehind: (operations) => proxy.dieAfter(operations),
        restart: async () => {
          await stop();
          proxy = await CuttingProxy.open(server.port);
          behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
        },
        get cursors() {
          return cursorsOf('p', project.cipher);
        },
        check: async () => {
          expect(await findings(project)).toEqual([]);
          await stop();
        },
      };
    };
    const { found } = await assertQueriesAreRight(makeProject, RUNS);
    expect(found).toBeGreaterThan(0);
  });

  it('include every document, whichever nodes write while others redefine them', async () => {
    const project = await newProject();
    const nodes = await Promise.all([1, 2, 3].map(() => openOn(project)));
    const node = (n: number) => nodes[n % 3] as DefinedStore;
    const definitions = [
      [blind('g')],
      [blind('g'), blind('n', 'g')],
      [blind('n', 'g'), unique('u')],
      [],
      [blind('g'), unique('u')],
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

  it('let one of many nodes win a value', async () => {
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

  it('are asked a bounded number of times by a transaction, though each refusal makes the next commit ask', async () => {
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
      await first.commit(Array.from({ length: 100 }, (_, at) => put(`d${n + at}`, `{"g":${at % 5}}`)));
    await close(first);
    const proxy = await CuttingProxy.open(server.port);
    const behind = openTestDatabase(server.urlOf('bundoc', proxy.port));
    const dying = await openOn(project, behind);
    proxy.cutAt('bundoc-add-blind-entries-1', 'before the answer');
    await dying.define('notes', { indexes: [blind('g')] }, NONE);
    proxy.dieAfter(12);
    await dying.indexes?.built();
    await dying[Symbol.asyncDispose]().catch(() => undefined);
    await behind[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
    const nodes = await Promise.all([1, 2].map(() => openOn(project)));
    for (const node of nodes) await settled(node);
    expect(await sql(`SELECT indexed FROM bundoc.blind_indexes WHERE project = '${project.project}'`)).toBe(
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
    proxy.cutAt('bundoc-blind-indexes-changed-1', 'before the answer');
    await store.define('notes', { indexes: [unique('u')] }, NONE);
    expect(proxy.cuts).toBe(1);
    await settled(store);
    const other = await openOn(project);
    await expect(commitOne(other, put('b', '{"u":1}'))).rejects.toMatchObject({ code: 'unique_violation' });
    expect(await sql(`SELECT count(*) FROM bundoc.blind_indexes WHERE project = '${project.project}'`)).toBe(
      '1',
    );
    await close(store, other);
  });

  it('block writes by a build that does not know them, in projects that have some', async () => {
    const [project, plain] = [await newProject(), await newProject()];
    const stores = [await openOn(project), await openOn(plain)] as const;
    for (const store of stores) await commitOne(store, put('a', '{"g":1}'));
    await stores[0].define('notes', { indexes: [blind('g')] }, NONE);
    const formerCommit = (of: PostgresProject) =>
      sql(`UPDATE bundoc.heads SET seq = seq + 1 WHERE project = '${of.project}'`);
    await expect(formerCommit(project)).rejects.toThrow('heads_entries_are_kept');
    await commitOne(stores[0], put('a', '{"g":2}'));
    await formerCommit(plain);
    await commitOne(stores[1], put('a', '{"g":2}'));
    await close(...stores);
  });

  it('are unaffected by a new version of the key', async () => {
    const project = await newProject();
    const before = await openOn(project);
    for (let n = 0; n < 5; n++) await commitOne(before, put(`d${n}`, `{"u":${n},"g":${n % 2}}`));
    await before.define('notes', { indexes: [unique('u'), blind('g')] }, NONE);
    await settled(before);
    await close(before);
    await project.rotate(database);
    const rotated = await openOn(project);
    while ((await rotated.reseal(2)).goesOn);
    await close(rotated);
    project.forgetFormerVersions();
    const store = await openOn(project);
    expect(await find(store, '{"g":1}')).toMatchObject({ index: 'g', ids: ['d1', 'd3'], scanned: 2 });
    await expect(commitOne(store, put('x', '{"u":3}'))).rejects.toMatchObject({ code: 'unique_violation' });
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('leave nothing behind when they are dropped, and get new numbers', async () => {
    const project = await newProject();
    const store = await openOn(project);
    for (let n = 0; n < 5; n++) await commitOne(store, put(`d${n}`, `{"g":${n}}`));
    for (let round = 0; round < 3; round++) {
      await store.define('notes', { indexes: [blind('g')] }, NONE);
      await settled(store);
      expect(await find(store, '{"g":4}')).toMatchObject({ index: 'g', ids: ['d4'] });
      await store.define('notes', undefined, NONE);
      await store.indexes?.built();
      const left = (table: string) =>
        sql(`SELECT count(*) FROM bundoc.${table} WHERE project = '${project.project}'`);
      expect([await left('blind_entries'), await left('blind_indexes')]).toEqual(['0', '0']);
    }
    await close(store);
  });

  it('end a list that uses them when they are dropped, instead of omitting documents', async () => {
    const project = await newProject();
    const [here, there] = [await openOn(project), await openOn(project)];
    for (let n = 0; n < 5; n++) await commitOne(here, put(`d${n}`, '{"g":1}'));
    await here.define('notes', { indexes: [blind('g')] }, NONE);
    await settled(here);
    await settled(there);
    // As when a node has begun to remove dropped indexes.
    const own = `project = '${project.project}'`;
    await sql(`UPDATE bundoc.blind_indexes SET dropped = true WHERE ${own};
               DELETE FROM bundoc.blind_entries WHERE ${own} AND created_seq < 4`);
    await expect(find(there, '{"g":1}')).rejects.toMatchObject({ code: 'overloaded' });
    await here.define('notes', { indexes: [] }, NONE);
    await here.indexes?.built();
    // It has not learned of it yet, and must not bring it back.
    await there.indexes?.keep?.();
    expect(await sql(`SELECT count(*) FROM bundoc.blind_indexes WHERE ${own}`)).toBe('0');
    await there.load();
    expect(await find(there, '{"g":1}')).toMatchObject({ index: null, scanned: 5 });
    await close(here, there);
  });

  it('find nothing in a project that another node is deleting, and report its fate', async () => {
    const project = await newProject();
    const store = await openOn(project);
    for (let n = 0; n < 3; n++) await commitOne(store, put(`d${n}`, '{"g":1}'));
    await store.define('notes', { indexes: [blind('g')] }, NONE);
    await settled(store);
    // As when the deletion has begun to remove documents: the rest must not be taken for all.
    const own = `project = '${project.project}'`;
    await sql(`DELETE FROM bundoc.heads WHERE ${own};
               DELETE FROM bundoc.documents WHERE ${own} AND created_seq < 2`);
    await expect(find(store, '{"g":1}')).rejects.toMatchObject({ code: 'project_not_found' });
    await close(store);
  });

  it('limit the entries that one transaction and one commit write', async () => {
    const project = await newProject();
    const store = await openOn(project);
    await store.define('notes', { indexes: [blind('g')] }, NONE);
    await settled(store);
    const many = (n: number) => `{"g":[${Array.from({ length: 990 }, (_, at) => n * 1_000 + at).join(',')}]}`;
    await Promise.all(Array.from({ length: 15 }, (_, n) => commitOne(store, put(`d${n}`, many(n)))));
    expect(await find(store, '{"g":14005}')).toMatchObject({ ids: ['d14'], scanned: 1 });
    const writes = Array.from({ length: 55 }, (_, n) => put(`e${n}`, many(n)));
    await expect(store.commit(writes)).rejects.toMatchObject({ code: 'payload_too_large' });
    expect(await store.get(ref('e0'))).toBeUndefined();
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('separate new entries from old ones in bounded memory, without a scan of all for each', async () => {
    const project = await newProject();
    const plans: string[] = [];
    const explaining = {
      query: database.query.bind(database),
      run: database.run.bind(database),
      transaction: (begin, action) =>
        database.transaction(begin, async (transaction, begun) => {
          await transaction.run("SET LOCAL work_mem = '64kB'");
          const last: Transaction['last'] = async (statement, values) => {
            const explain = { name: `explain-${statement.name}`, text: `EXPLAIN ${statement.text}` };
            plans.push((await transaction.query(explain, values)).join('\n'));
            await transaction.last(statement, values);
          };
          return action({ ...transaction, last }, begun);
        }),
    } satisfies Pick<Database, 'query' | 'run' | 'transaction'>;
    const store = await openOn(project, explaining as unknown as Database);
    await store.define('notes', { indexes: [blind('g')] }, NONE);
    const many = (from: number) => `{"g":[${Array.from({ length: 990 }, (_, at) => from + at).join(',')}]}`;
    for (const round of [0, 500])
      await store.commit([0, 1, 2].map((n) => put(`d${n}`, many(n * 2_000 + round))));
    expect(plans.at(-1)).toContain('blind_entries_by_document');
    expect(plans.at(-1)).not.toContain('(SubPlan');
    expect(await findings(project)).toEqual([]);
    await close(store);
  });

  it('have a bounded number of entries removed by one transaction, however many documents expire or are deleted', async () => {
    const project = await newProject();
    const store = await openOn(project);
    const ttl = { field: 'until', seconds: 0 };
    await store.define('notes', { indexes: [blind('g')], ttl }, NONE);
    const many = (at: number) => Array.from({ length: 990 }, (_, n) => at * 1_000 + n).join(',');
    const document = (at: number, until: string) => put(`d${at}`, `{"g":[${many(at)}],"until":"${until}"}`);
    const [places, long, over] = [
      Array.from({ length: 60 }, (_, at) => at),
      '2999-01-01T00:00:00Z',
      '2000-01-01T00:00:00Z',
    ];
    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, long)));
    const tooMany = { code: 'payload_too_large' };
    await expect(store.commit(places.map((at) => remove(`d${at}`)))).rejects.toMatchObject(tooMany);
    await expect(store.commit(places.map((at) => put(`d${at}`, '{}')))).rejects.toMatchObject(tooMany);
    expect(await store.get(ref('d59'))).toBeDefined();

    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, over)));
    expect(await store.expired.sweepRound()).toBe(places.length);
    const entries = `SELECT count(*) FROM bundoc.blind_entries WHERE project = '${project.project}'`;
    expect(await sql(entries)).toBe('0');

    // Concurrent commits are put into as many transactions as they need.
    for (const from of [0, 10, 20, 30, 40, 50])
      await store.commit(places.slice(from, from + 10).map((at) => document(at, long)));
    let transactions = 0;
    const counting = {
      query: (...args) => database.query(...args),
      run: (text) => database.run(text),
      transaction: (begin, action) => {
        transactions++;
        return database.transaction(begin, action);
      },
    } satisfies Pick<Database, 'query' | 'run' | 'transaction'>;
    const node = await openOn(project, counting as unknown as Database);
    const before = transactions;
    await Promise.all(places.map((at) => commitOne(node, remove(`d${at}`))));
    expect(transactions - before, 'without a bound: one').toBeGreaterThan(1);
    expect(await sql(entries)).toBe('0');
    expect(await findings(project)).toEqual([]);
    await close(store, node);
  });

  describe('with tampered rows', () => {
    it('refuse only the writes of their collection, until it is redefined', async () => {
      const project = await newProject();
      const store = await openOn(project);
      await store.define('notes', { indexes: [unique('u')] }, NONE);
      await commitOne(store, put('a', '{"u":1}'));
      await settled(store);
      await close(store);
      const own = `project = '${project.project}'`;
      await sql(
        `UPDATE bundoc.blind_indexes SET spec = set_byte(spec, 20, get_byte(spec, 20) # 1) WHERE ${own}`,
      );
      expect((await findings(project))?.[0]?.problem).toBe('does not open');
      const plain = await project.open(database);
      await expect(commitOne(plain, put('b', '{"u":1}'))).rejects.toMatchObject({ code: 'integrity_error' });
      await plain.commit([{ ...put('b', '{"u":1}'), ref: { collection: 'other', id: 'b' } }]);
      await plain[Symbol.asyncDispose]();
      const again = await openOn(project);
      await settled(again);
      await expect(commitOne(again, put('b', '{"u":1}'))).rejects.toMatchObject({ code: 'unique_violation' });
      expect(await findings(project)).toEqual([]);
      await close(again);
    });

    it('stay unchanged beside an undecryptable definition, and the project is usable', async () => {
      const project = await newProject();
      const store = await openOn(project);
      await store.define('notes', { indexes: [unique('u')] }, NONE);
      await commitOne(store, put('a', '{"u":1}'));
      await settled(store);
      const row = `project = '${project.project}' AND name = '\\x${project.cipher.fileName(definitionRef('notes'))}'`;
      await sql(
        `UPDATE bundoc.documents SET state = set_byte(state, 20, get_byte(state, 20) # 1) WHERE ${row}`,
      );
      await store.load();
      await close(store);
      const again = await openOn(project);
      await again.commit([{ ...put('a', '{"u":1}'), ref: { collection: 'other', id: 'a' } }]);
      await again.define('notes', { indexes: [unique('u')] }, NONE);
      await settled(again);
      await expect(commitOne(again, put('b', '{"u":1}'))).rejects.toMatchObject({ code: 'unique_violation' });
      expect(await findings(project)).toEqual([]);
      await close(again);
    });

    it('are reported by verify, entry by entry', async () => {
      const project = await newProject();
      const store = await openOn(project);
      await store.define('notes', { indexes: [blind('g')] }, NONE);
      for (const id of ['a', 'b']) await commitOne(store, put(id, `{"g":"${id}"}`));
      await settled(store);
      const own = `project = '${project.project}'`;
      const name = project.cipher.fileName(ref('a'));
      await sql(`DELETE FROM bundoc.blind_entries WHERE ${own} AND name = '\\x${name}'`);
      expect(await findings(project)).toMatchObject([{ part: name }]);
      await sql(
        `INSERT INTO bundoc.blind_entries SELECT project, index_id, token, 99, '\\x${'00'.repeat(16)}' FROM bundoc.blind_entries WHERE ${own}`,
      );
      await commitOne(store, put('a', '{"g":"a"}'));
      expect(await findings(project)).toMatchObject([{ part: 'blind_entries' }]);
      await close(store);
    });
  });

  it('contain nothing readable of values, fields or names, and no token of another index', async () => {
    const project = await newProject();
    const store = await openOn(project);
    const secrets = ['plantedField', 'planted value', 'planted-name', '4155550123'];
    const indexes = [
      { name: secrets[2] as string, fields: [secrets[0] as string], unique: true },
      blind('other'),
      blind('other', secrets[0] as string),
    ];
    await store.define('notes', { indexes }, NONE);
    await commitOne(
      store,
      put('a', `{"${secrets[0]}":["${secrets[1]}",${secrets[3]}],"other":"${secrets[1]}"}`),
    );
    await store.define('same', { indexes }, NONE);
    await store.commit([{ ...put('a', `{"other":"${secrets[1]}"}`), ref: { collection: 'same', id: 'a' } }]);
    await settled(store);
    const dump = await server.dump('bundoc');
    for (const text of secrets)
      for (const form of [text, Buffer.from(text).toString('hex'), Buffer.from(text).toString('base64')])
        expect(dump).not.toContain(form);
    const counts = `SELECT count(*), count(DISTINCT token) FROM bundoc.blind_entries WHERE project = '${project.project}'`;
    // The list itself and its elements, in two indexes; "other" alone in two collections.
    expect(await sql(counts)).toBe('8|8');
    await close(store);
  });
});

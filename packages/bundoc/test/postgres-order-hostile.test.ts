import { hasCode } from '@bundoc/shared/contract/app-error';
import { runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { sampleOf } from '@bundoc/shared/testing/sample';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { DefinedStore } from '../src/collections/defined-store.ts';
import type { PostgresProject } from '../src/testing/postgres-project.ts';
import { contentOf, expectedIds } from '../src/testing/queries-property.ts';
import { put, remove } from '../src/testing/writes.ts';
import { type Answered, type Asked, ask } from './support/ordered-queries.ts';
import {
  close,
  NONE,
  newProject,
  openOn,
  SMALL,
  settled,
  sql,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

const SEED = Number(process.env['ORDER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Calls of `keep()` on each node, after which an index must be of use again. */
const KEEPS = 4;

const QUESTIONS: readonly Asked[] = [
  { where: '{"n":{"$gte":10,"$lt":40}}', orderBy: [{ field: 'n', direction: 'asc' }], limit: 4 },
  { where: '{"n":{"$gte":0}}', orderBy: [{ field: 'n', direction: 'desc' }], limit: 7 },
  { where: '{"n":{"$in":[1,3,5,7,11,13,17,19,23,29,100]}}' },
  { where: '{"g":"b","n":{"$gt":5}}', limit: 3 },
];

/** What a hostile database may do to the rows of a project's order. `p` is a condition for the project. */
const ATTACKS: Readonly<Record<string, (p: string, project: string) => string>> = {
  'an older row of an index': (p) => restore(p, -1),
  'the oldest row of an index': (p) => restore(p, 0),
  'an older row of an index, with the pages that were there': (p) => `${restore(p, -1)};
    INSERT INTO bundoc.index_pages SELECT * FROM old.index_pages WHERE ${p} ON CONFLICT DO NOTHING`,
  'an older row of an index, without its pages': (p) => `${restore(p, -1)}; ${forget(p)}`,
  'runs as of a later commit': (p) => `UPDATE bundoc.indexes SET as_of = as_of + 3 WHERE ${p}`,
  'runs as of a commit in the far future': (p) =>
    `UPDATE bundoc.indexes SET as_of = 1000000000000 WHERE ${p}`,
  'runs as of an earlier commit': (p) => `UPDATE bundoc.indexes SET as_of = 0 WHERE ${p}`,
  'another version of runs': (p) => `UPDATE bundoc.indexes SET runs_version = runs_version + 1 WHERE ${p}`,
  'the first version of runs': (p) => `UPDATE bundoc.indexes SET runs_version = 0 WHERE ${p}`,
  'a version of runs before the first': (p) => `UPDATE bundoc.indexes SET runs_version = -1 WHERE ${p}`,
  'an earlier version of runs': (p) => `UPDATE bundoc.indexes SET runs_version = runs_version - 1 WHERE ${p}`,
  'runs of another index': (
    p,
  ) => `UPDATE bundoc.indexes AS i SET (runs, runs_version, as_of, runs_key_version) =
    (SELECT runs, runs_version, as_of, runs_key_version FROM bundoc.indexes AS o WHERE o.${p} AND o.id <> i.id LIMIT 1) WHERE i.${p}`,
  'cut runs': (p) => `UPDATE bundoc.indexes SET runs = substr(runs, 1, 100) WHERE ${p}`,
  'no runs': (p) => `UPDATE bundoc.indexes SET runs = NULL, runs_key_version = NULL WHERE ${p}`,
  'runs that are said to be unfinished': (p) => `UPDATE bundoc.indexes SET runs_indexed = 5 WHERE ${p}`,
  'unfinished runs that are said to be whole': (p) => `UPDATE bundoc.indexes AS i
    SET (runs, runs_version, as_of, runs_key_version, runs_indexed) = (
      SELECT runs, runs_version, as_of, runs_key_version, NULL::bigint FROM old.indexes AS o
      WHERE o.${p} AND o.id = i.id AND o.runs IS NOT NULL AND o.runs_indexed IS NOT NULL LIMIT 1) WHERE i.${p}`,
  'a beginning in the far future': (p) => `UPDATE bundoc.indexes SET since = 1000000000000 WHERE ${p}`,
  'a beginning in the far future, and no runs': (p) =>
    `UPDATE bundoc.indexes SET since = 1000000000000, runs = NULL, runs_key_version = NULL WHERE ${p}`,
  'a beginning before the first commit, and no runs': (p) =>
    `UPDATE bundoc.indexes SET since = 0, runs = NULL, runs_key_version = NULL WHERE ${p}`,
  'work for ever': (p) =>
    `UPDATE bundoc.indexes SET worked_until = now() + interval '100 years', runs_indexed = 1 WHERE ${p}`,
  'missing pages': (p) => `DELETE FROM bundoc.index_pages WHERE ${p}`,
  'a missing page': (p) =>
    `DELETE FROM bundoc.index_pages WHERE ctid = (SELECT max(ctid) FROM bundoc.index_pages WHERE ${p})`,
  'cut pages': (p) => `UPDATE bundoc.index_pages SET sealed = substr(sealed, 1, 7983) WHERE ${p}`,
  'longer pages': (p) => `UPDATE bundoc.index_pages SET sealed = sealed || '\\x00' WHERE ${p}`,
  'swapped pages': (p) => `UPDATE bundoc.index_pages AS g SET sealed = o.sealed FROM (
      SELECT id, coalesce(lead(sealed) OVER (ORDER BY id), first_value(sealed) OVER (ORDER BY id)) AS sealed FROM bundoc.index_pages WHERE ${p}
    ) AS o WHERE g.${p} AND g.id = o.id`,
  'pages under the names of other runs': (
    p,
  ) => `UPDATE bundoc.index_pages AS g SET run = o.run, sealed = o.sealed FROM (
      SELECT id, coalesce(lead(run) OVER (ORDER BY id), first_value(run) OVER (ORDER BY id)) AS run,
        coalesce(lead(sealed) OVER (ORDER BY id), first_value(sealed) OVER (ORDER BY id)) AS sealed FROM bundoc.index_pages WHERE ${p}
    ) AS o WHERE g.${p} AND g.id = o.id`,
  'pages of another project': (p) => `UPDATE bundoc.index_pages SET sealed = (
      SELECT sealed FROM bundoc.index_pages WHERE NOT (${p}) LIMIT 1) WHERE ${p}`,
  'no list of runs': (p) => `DELETE FROM bundoc.index_runs WHERE ${p}`,
  'runs that are said to be left': (p) =>
    `UPDATE bundoc.index_runs SET left_at = now() - interval '1 day' WHERE ${p}`,
  'keys of other documents': (p) => `UPDATE bundoc.documents AS d SET keys = o.keys FROM (
      SELECT name, coalesce(lead(keys) OVER (ORDER BY name), first_value(keys) OVER (ORDER BY name)) AS keys
      FROM bundoc.documents WHERE ${p} AND keys IS NOT NULL
    ) AS o WHERE d.${p} AND d.name = o.name`,
  'older keys': (p) => `UPDATE bundoc.documents AS d SET keys = o.keys FROM old.documents AS o
    WHERE d.${p} AND o.project = d.project AND o.name = d.name`,
  'no keys': (p) => `UPDATE bundoc.documents SET keys = NULL WHERE ${p}`,
  'cut keys': (p) => `UPDATE bundoc.documents SET keys = substr(keys, 1, 20) WHERE ${p}`,
  'far too long keys': (p) =>
    `UPDATE bundoc.documents SET keys = decode(repeat('00', 1000000), 'hex') WHERE ${p} AND keys IS NOT NULL`,
};

/** @param at which of the versions that were whole: counted from the first or, if negative, from the last. */
function restore(p: string, at: number): string {
  return `UPDATE bundoc.indexes AS i SET (runs, runs_version, as_of, runs_key_version, runs_indexed, pages, since) = (
    SELECT runs, runs_version, as_of, runs_key_version, runs_indexed, pages, since FROM old.indexes AS o
    WHERE o.${p} AND o.id = i.id AND o.runs_indexed IS NULL AND o.runs_version <> i.runs_version
    ORDER BY runs_version ${at < 0 ? 'DESC' : ''} OFFSET ${at < 0 ? -at - 1 : at} LIMIT 1
  ) WHERE i.${p}`;
}

/** Whatever no longer is of a present run is removed, as after an hour. */
function forget(p: string): string {
  return `DELETE FROM bundoc.index_pages WHERE ${p} AND run IN (SELECT run FROM bundoc.index_runs WHERE ${p} AND left_at IS NOT NULL);
    DELETE FROM bundoc.index_runs WHERE ${p} AND left_at IS NOT NULL`;
}

/** Every state of the rows is kept. */
const KEEP = `CREATE SCHEMA old;
  CREATE TABLE old.indexes AS SELECT * FROM bundoc.indexes LIMIT 0;
  CREATE TABLE old.index_pages AS SELECT * FROM bundoc.index_pages LIMIT 0;
  CREATE TABLE old.documents AS SELECT * FROM bundoc.documents LIMIT 0;
  CREATE FUNCTION old.keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN EXECUTE format('INSERT INTO old.%I SELECT ($1).*', TG_TABLE_NAME) USING OLD; RETURN OLD; END $$;
  CREATE TRIGGER keep AFTER UPDATE ON bundoc.indexes FOR EACH ROW
    WHEN (OLD.runs_version <> NEW.runs_version) EXECUTE FUNCTION old.keep();
  CREATE TRIGGER keep AFTER DELETE ON bundoc.index_pages FOR EACH ROW EXECUTE FUNCTION old.keep();
  CREATE TRIGGER keep AFTER UPDATE ON bundoc.documents FOR EACH ROW EXECUTE FUNCTION old.keep()`;

const write = (store: DefinedStore, from: number, count: number, shift = 0) =>
  store.commit(
    Array.from({ length: count }, (_, at) =>
      put(`d${from + at}`, `{"n":${(7 * (from + at + shift)) % 50},"g":"${'abc'[(from + at) % 3]}"}`),
    ),
  );

describe('ordered indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();
  beforeAll(() => sql(KEEP).then(() => undefined));

  /** A project with two indexes, older rows of them, and two nodes, of which one has used them. */
  const opened = async (): Promise<readonly [PostgresProject, DefinedStore]> => {
    const project = await newProject({ orderSizes: SMALL });
    const store = await openOn(project);
    await write(store, 0, 12);
    const indexes = [['n'], ['g', 'n']].map((fields) => ({ fields, unique: false }));
    await store.define('notes', { indexes }, NONE);
    await settled(store);
    await write(store, 8, 12, 1);
    await settled(store);
    await store.commit([
      ...Array.from({ length: 6 }, (_, at) => remove(`d${2 * at}`)),
      put('d4', '{"n":3,"g":"b"}'),
    ]);
    await settled(store);
    await write(store, 20, 1);
    for (const one of QUESTIONS) expect((await ask(store, project, one))?.index).not.toBeNull();
    return [project, store];
  };

  /** Answers equal a scan of the same rows, or are refused. @returns those of the questions. */
  const checked = async (store: DefinedStore, project: PostgresProject) => {
    const answers: (Answered | undefined)[] = [];
    for (const one of QUESTIONS) {
      const answer = await ask(store, project, one).catch((error: unknown) => {
        if (!hasCode(error, 'integrity_error') && !hasCode(error, 'overloaded')) throw error;
        return undefined;
      });
      answers.push(answer);
      if (answer === undefined) continue;
      const all = await contentOf(store);
      expect(answer.ids).toEqual(expectedIds(all, { where: one.where, orderBy: one.orderBy ?? [] }));
    }
    return answers;
  };

  const withstands = async (attacks: readonly string[]) => {
    const [project, warm] = await opened();
    const other = await openOn(project);
    await checked(other, project);
    for (const name of attacks)
      await sql(ATTACKS[name]?.(`project = '${project.project}'`, project.project) as string);
    const cold = await openOn(project);
    for (const node of [warm, cold]) await checked(node, project);
    // What the attack hides must not hide later changes, either.
    await write(warm, 30, 3);
    await warm.commit([remove('d13'), put('d14', '{"n":49,"g":"b"}')]);
    for (const node of [cold, warm, other]) await checked(node, project);
    for (let keep = 0; keep < KEEPS; keep++)
      for (const node of [warm, cold, other]) {
        await node.load();
        await node.indexes?.built();
        await checked(node, project);
      }
    for (const node of [warm, cold, other])
      for (const answer of await checked(node, project))
        expect(answer?.index, 'the index is of use').toBeTruthy();
    expect(project.failures).toEqual([]);
    await close(warm, cold, other);
  };

  /** Some of them in `npm test`, and all in `npm run test:long`. */
  const attacks = sampleOf(Object.keys(ATTACKS), runs(6, Number.POSITIVE_INFINITY), SEED);
  it.each(attacks)('give the answers of a scan and heal, with %s', async (attack) => {
    await withstands([attack]);
  });

  it('give the answers of a scan while a database damages whatever is written, and heal afterwards', async () => {
    const [project, store] = await opened();
    const p = `NEW.project = '${project.project}'`;
    for (const [table, event, column] of [
      ['indexes', 'UPDATE', 'runs'],
      ['index_pages', 'INSERT', 'sealed'],
    ]) {
      await sql(`CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          NEW.${column} := set_byte(NEW.${column}, 20, get_byte(NEW.${column}, 20) # 1); RETURN NEW; END $$;
        CREATE TRIGGER damage BEFORE ${event} ON bundoc.${table} FOR EACH ROW WHEN (${p}) EXECUTE FUNCTION damage()`);
      for (let round = 0; round < 3; round++) {
        await write(store, 40 + 3 * round, 3);
        await store.load();
        await store.indexes?.built();
        await checked(store, project);
      }
      await sql('DROP FUNCTION damage CASCADE');
      for (let keep = 0; keep < KEEPS; keep++) {
        await store.load();
        await store.indexes?.built();
        await checked(store, project);
      }
      for (const answer of await checked(store, project)) expect(answer?.index).toBeTruthy();
    }
    await close(store);
  });

  it(
    `give the answers of a scan and heal, after several attacks (ORDER_SEED=${SEED})`,
    async () => {
      const several = fc.uniqueArray(fc.constantFrom(...Object.keys(ATTACKS)), {
        minLength: 2,
        maxLength: 4,
      });
      await fc.assert(fc.asyncProperty(several, withstands), {
        numRuns: runs(2, 1_000),
        seed: SEED,
        endOnFailure: true,
      });
    },
    runs(60_000, 14_400_000),
  );
});

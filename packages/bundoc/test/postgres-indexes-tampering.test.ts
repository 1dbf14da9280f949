import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { definitionRef } from '../src/engine/port/definition.ts';
import { commitOne, put, ref } from '../src/testing/writes.ts';
import {
  close,
  database,
  findings,
  NONE,
  newProject,
  openOn,
  settled,
  sql,
  unique,
  usePostgresIndexes,
} from './support/postgres-indexes.ts';

describe('indexes on PostgreSQL', needs('postgresql'), () => {
  usePostgresIndexes();

  describe('with tampered rows', () => {
    it('refuse only the writes of their collection, until it is redefined', async () => {
      const project = await newProject();
      const store = await openOn(project);
      await store.define('notes', { indexes: [unique('u')] }, NONE);
      await commitOne(store, put('a', '{"u":1}'));
      await settled(store);
      await close(store);
      const own = `project = '${project.project}'`;
      await sql(`UPDATE bundoc.indexes SET spec = set_byte(spec, 20, get_byte(spec, 20) # 1) WHERE ${own}`);
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
      await store.define('notes', { indexes: [unique('g')] }, NONE);
      for (const id of ['a', 'b']) await commitOne(store, put(id, `{"g":"${id}"}`));
      await settled(store);
      const own = `project = '${project.project}'`;
      const name = project.cipher.fileName(ref('a'));
      await sql(`DELETE FROM bundoc.index_tokens WHERE ${own} AND name = '\\x${name}'`);
      expect(await findings(project)).toMatchObject([{ part: name }]);
      await sql(
        `INSERT INTO bundoc.index_tokens SELECT project, index_id, token, 99, '\\x${'00'.repeat(16)}' FROM bundoc.index_tokens WHERE ${own}`,
      );
      await commitOne(store, put('a', '{"g":"a"}'));
      expect(await findings(project)).toMatchObject([{ part: 'index_tokens' }]);
      await close(store);
    });
  });
});

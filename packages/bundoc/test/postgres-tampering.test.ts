import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import { commitOne, put, ref, remove } from '../src/testing/writes.ts';
import { database, newProject, sql, textOf, usePostgresEngine } from './support/postgres-engine.ts';

describe('PostgreSQL', needs('postgresql'), () => {
  usePostgresEngine();

  describe('a tampered row', () => {
    const damages: Record<string, string> = {
      'its sealed bytes': `UPDATE bundoc.documents SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)`,
      'its revision': `UPDATE bundoc.documents SET rev = set_byte(rev, 0, get_byte(rev, 0) # 1)`,
    };
    for (const [what, damage] of Object.entries(damages))
      it(`is undecryptable (${what}), and can be replaced and deleted`, async () => {
        const project = await newProject();
        const store = await project.open(database);
        for (const id of ['a', 'b']) await commitOne(store, put(id, '{"v":1}'));
        const name = project.cipher.fileName(ref('a'));
        const damaged = `${damage} WHERE project = '${project.project}' AND name = '\\x${name}'`;
        await sql(damaged);
        await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
        expect(project.damaged).toContain(name);
        const page = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 });
        expect(page.documents.map(({ metadata }) => metadata._id)).toEqual(['b']);
        await commitOne(store, put('a', '{"v":2}', { kind: 'present' }));
        expect(await textOf(store, 'a')).toContain('"v":2');
        await sql(damaged);
        await commitOne(store, remove('a'));
        expect(await store.get(ref('a'))).toBeUndefined();
      });

    it('is undecryptable when its place in an order was changed', async () => {
      const project = await newProject();
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      await sql(`UPDATE bundoc.documents SET seq = 9 WHERE project = '${project.project}'`);
      await expect(store.changes(0, 10)).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('is not left out of the feed when its collection was removed', async () => {
      const project = await newProject();
      const store = await project.open(database);
      await commitOne(store, put('a', '{}'));
      await sql(
        `ALTER TABLE bundoc.documents ALTER COLUMN collection DROP NOT NULL;
         UPDATE bundoc.documents SET collection = NULL WHERE project = '${project.project}'`,
      );
      await expect(store.changes(0, 10)).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('is undecryptable under the name of another document, collection or project', async () => {
      const [project, other] = [await newProject(), await newProject()];
      const store = await project.open(database);
      const otherStore = await other.open(database);
      for (const id of ['a', 'b']) await commitOne(store, put(id, '{}'));
      await commitOne(otherStore, put('a', '{}'));
      const [a, b] = ['a', 'b'].map((id) => project.cipher.fileName(ref(id)));
      const own = `project = '${project.project}'`;
      await sql(
        `UPDATE bundoc.documents AS d SET sealed = o.sealed, rev = o.rev, state = o.state FROM bundoc.documents AS o
         WHERE d.${own} AND d.name = '\\x${a}' AND o.${own} AND o.name = '\\x${b}'`,
      );
      await expect(store.get(ref('a'))).rejects.toMatchObject({ code: 'integrity_error' });
      await sql(
        `UPDATE bundoc.documents AS d SET sealed = o.sealed, rev = o.rev, state = o.state FROM bundoc.documents AS o
         WHERE d.${own} AND d.name = '\\x${b}' AND o.project = '${other.project}'`,
      );
      await expect(store.get(ref('b'))).rejects.toMatchObject({ code: 'integrity_error' });
    });

    it('is noticed by writes and feeds when an older head was put back', async () => {
      const project = await newProject();
      const store = await project.open(database);
      for (const id of ['a', 'b', 'c']) await commitOne(store, put(id, '{"v":1}'));
      await sql(`UPDATE bundoc.heads SET seq = 1 WHERE project = '${project.project}'`);
      const older = { code: 'integrity_error' };
      await expect(store.changes(1, 10)).rejects.toMatchObject(older);
      await expect(store.sealedChanges(0, { limit: 10, bytesMax: 1e6 })).rejects.toMatchObject(older);
      await expect(commitOne(store, put('b', '{"v":2}'))).rejects.toMatchObject(older);
      await expect(commitOne(store, remove('c'))).rejects.toMatchObject(older);
      // Its position would be that of `b`.
      await expect(commitOne(store, put('new', '{}'))).rejects.toMatchObject(older);
      expect(await textOf(store, 'b')).toContain('"v":1');
      expect(await store.get(ref('new'))).toBeUndefined();
    });
  });
});

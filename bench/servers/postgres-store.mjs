// A simple solution without Bundoc: documents sealed by hand in a `bytea`, one statement per request, a pool.
// In order, they have a number in the clear beside it, in a B-tree.

import { createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { aadOf, open, seal } from '@bundoc/shared/crypto/aead';
import pg from 'pg';

const CONNECTIONS = 16;

export async function openStore(connectionString) {
  const key = createSecretKey(randomBytes(32));
  const nameKey = createSecretKey(randomBytes(32));
  const pool = new pg.Pool({ connectionString, max: CONNECTIONS });
  await pool.query('CREATE TABLE documents (name bytea PRIMARY KEY, sealed bytea NOT NULL)');
  await pool.query('ALTER TABLE documents ALTER COLUMN sealed SET STORAGE EXTERNAL');
  await pool.query('CREATE TABLE ordered (n bigint NOT NULL, name bytea PRIMARY KEY, sealed bytea NOT NULL)');
  await pool.query('ALTER TABLE ordered ALTER COLUMN sealed SET STORAGE EXTERNAL');
  await pool.query('CREATE INDEX ordered_by_n ON ordered (n, name)');
  const nameOf = ({ project, collection, id }) =>
    createHmac('sha256', nameKey).update(`${project}\0${collection}\0${id}`).digest().subarray(0, 16);

  const sealedOf = (name, text) => seal(key, text, aadOf('bench/doc/v1', name.toString('hex')));
  const opened = (name, sealed) => open(key, sealed, aadOf('bench/doc/v1', name.toString('hex')));

  return {
    /** Documents with the numbers from 1 to `count`, in mixed order. */
    async fill(count, text) {
      await pool.query('TRUNCATE ordered');
      for (let at = 0; at < count; at += 500) {
        const numbers = Array.from({ length: Math.min(500, count - at) }, (_, of) => at + of);
        const names = numbers.map((n) => nameOf({ project: 'ordered', collection: 'notes', id: String(n) }));
        const sealed = numbers.map((n, of) =>
          sealedOf(names[of], Buffer.from(JSON.stringify({ n: count - n, text }))),
        );
        await pool.query({
          name: 'fill',
          text: 'INSERT INTO ordered SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])',
          values: [numbers.map((n) => count - n), names, sealed],
        });
      }
      await pool.query('ANALYZE ordered');
    },
    async range(from, limit) {
      const { rows } = await pool.query({
        name: 'range',
        text: 'SELECT name, sealed FROM ordered WHERE n >= $1 ORDER BY n, name LIMIT $2',
        values: [from, limit],
      });
      return rows.map(({ name, sealed }) => opened(name, sealed));
    },
    async put(ref, text) {
      const name = nameOf(ref);
      await pool.query({
        name: 'put',
        text: 'INSERT INTO documents VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed',
        values: [name, seal(key, text, aadOf('bench/doc/v1', name.toString('hex')))],
      });
    },
    /** @param change makes the new text of the old one */
    async patch(ref, change) {
      const name = nameOf(ref);
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const { rows } = await client.query({
          name: 'lock',
          text: 'SELECT sealed FROM documents WHERE name = $1 FOR UPDATE',
          values: [name],
        });
        await client.query({
          name: 'set',
          text: 'UPDATE documents SET sealed = $2 WHERE name = $1',
          values: [name, sealedOf(name, change(opened(name, rows[0].sealed)))],
        });
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    },
    async get(ref) {
      const name = nameOf(ref);
      const { rows } = await pool.query({
        name: 'get',
        text: 'SELECT sealed FROM documents WHERE name = $1',
        values: [name],
      });
      const sealed = rows[0]?.sealed;
      return sealed === undefined
        ? undefined
        : open(key, sealed, aadOf('bench/doc/v1', name.toString('hex')));
    },
  };
}

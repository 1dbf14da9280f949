// A simple solution without Bundoc: documents sealed by hand in a `bytea`, one statement per request, a pool.

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
  const nameOf = ({ project, collection, id }) =>
    createHmac('sha256', nameKey).update(`${project}\0${collection}\0${id}`).digest().subarray(0, 16);

  return {
    async put(ref, text) {
      const name = nameOf(ref);
      await pool.query({
        name: 'put',
        text: 'INSERT INTO documents VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed',
        values: [name, seal(key, text, aadOf('bench/doc/v1', name.toString('hex')))],
      });
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

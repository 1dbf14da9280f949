import type { Installation, KnownKek, PublicJwk, WrappedSecrets } from '../../records/installation.ts';
import type { Connection } from './connection.ts';

export function readInstallation(connection: Connection): Installation | undefined {
  const row = connection.row('SELECT * FROM installation');
  if (row === undefined) return undefined;
  return {
    createdAt: row['created_at'] as string,
    chainKeyWrapped: row['chain_key_wrapped'] as Uint8Array,
    signingSeedWrapped: row['signing_seed_wrapped'] as Uint8Array,
    signingKey: JSON.parse(row['signing_key'] as string) as PublicJwk,
    keks: [...connection.rows('SELECT id, check_value FROM keks ORDER BY added_at, id')].map((kek) => ({
      id: kek['id'] as string,
      checkValue: kek['check_value'] as string,
    })),
  };
}

/** Inside a write transaction that found no installation. */
export function insertInstallation(connection: Connection, installation: Installation): void {
  connection.run(
    `INSERT INTO installation (id, created_at, chain_key_wrapped, signing_seed_wrapped, signing_key)
       VALUES (1, ?, ?, ?, ?)`,
    installation.createdAt,
    installation.chainKeyWrapped,
    installation.signingSeedWrapped,
    JSON.stringify(installation.signingKey),
  );
  for (const kek of installation.keks) insertKek(connection, kek, installation.createdAt);
}

/** Inside a write transaction. @returns false when others than `previous` are stored. */
export function replaceSecrets(
  connection: Connection,
  secrets: WrappedSecrets,
  previous: WrappedSecrets,
): boolean {
  const changed = connection.run(
    `UPDATE installation SET chain_key_wrapped = ?, signing_seed_wrapped = ?
      WHERE chain_key_wrapped = ? AND signing_seed_wrapped = ?`,
    secrets.chainKeyWrapped,
    secrets.signingSeedWrapped,
    previous.chainKeyWrapped,
    previous.signingSeedWrapped,
  );
  return changed === 1;
}

export function hasKek(connection: Connection, id: string): boolean {
  return connection.row('SELECT 1 FROM keks WHERE id = ?', id) !== undefined;
}

/** Inside a write transaction. */
export function insertKek(connection: Connection, kek: KnownKek, addedAt: string): void {
  connection.run(
    'INSERT INTO keks (id, check_value, added_at) VALUES (?, ?, ?)',
    kek.id,
    kek.checkValue,
    addedAt,
  );
}

import type { Installation, KnownKek, PublicJwk, WrappedSecrets } from '../../records/installation.ts';
import { rows, run, runOne, type Sql } from './statement.ts';

/** One statement, so that both tables are from one snapshot. */
export function* readInstallation(): Sql<Installation | undefined> {
  const found = yield* rows(
    `SELECT i.*, k.id AS kek_id, k.check_value FROM installation AS i LEFT JOIN keks AS k ON true ORDER BY k.added_at, k.id`,
  );
  const [first] = found;
  if (first === undefined) return undefined;
  return {
    createdAt: first['created_at'] as string,
    chainKeyWrapped: first['chain_key_wrapped'] as Uint8Array,
    signingSeedWrapped: first['signing_seed_wrapped'] as Uint8Array,
    signingKey: JSON.parse(first['signing_key'] as string) as PublicJwk,
    keks: found
      .filter((row) => row['kek_id'] !== null)
      .map((row) => ({ id: row['kek_id'] as string, checkValue: row['check_value'] as string })),
  };
}

/** Inside a write that found no installation. */
export function* insertInstallation(installation: Installation): Sql<void> {
  yield* runOne(
    `INSERT INTO installation (id, created_at, chain_key_wrapped, signing_seed_wrapped, signing_key)
       VALUES (1, $1, $2, $3, $4)`,
    installation.createdAt,
    installation.chainKeyWrapped,
    installation.signingSeedWrapped,
    JSON.stringify(installation.signingKey),
  );
  for (const kek of installation.keks) yield* insertKek(kek, installation.createdAt);
}

/** Inside a write. @returns false when others than `previous` are stored. */
export function* replaceSecrets(secrets: WrappedSecrets, previous: WrappedSecrets): Sql<boolean> {
  const changed = yield* run(
    `UPDATE installation SET chain_key_wrapped = $1, signing_seed_wrapped = $2
      WHERE chain_key_wrapped = $3 AND signing_seed_wrapped = $4`,
    secrets.chainKeyWrapped,
    secrets.signingSeedWrapped,
    previous.chainKeyWrapped,
    previous.signingSeedWrapped,
  );
  return changed === 1;
}

/** Inside a write. @returns false when a KEK of that id is known already. */
export function* insertKek(kek: KnownKek, addedAt: string): Sql<boolean> {
  const added = yield* run(
    'INSERT INTO keks (id, check_value, added_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
    kek.id,
    kek.checkValue,
    addedAt,
  );
  return added === 1;
}

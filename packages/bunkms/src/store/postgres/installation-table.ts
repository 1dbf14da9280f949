import type { Installation, KnownKek, PublicJwk, WrappedSecrets } from '../../records/installation.ts';
import type { Session } from './session.ts';

export async function readInstallation(session: Session): Promise<Installation | undefined> {
  // One statement: the two tables are of one moment.
  const row = await session.row(
    `SELECT *, (SELECT coalesce(json_agg(json_build_object('id', id, 'checkValue', check_value)
         ORDER BY added_at, id), '[]') FROM keks) AS keks
       FROM installation`,
  );
  if (row === undefined) return undefined;
  return {
    createdAt: row['created_at'] as string,
    chainKeyWrapped: row['chain_key_wrapped'] as Uint8Array,
    signingSeedWrapped: row['signing_seed_wrapped'] as Uint8Array,
    signingKey: JSON.parse(row['signing_key'] as string) as PublicJwk,
    keks: row['keks'] as KnownKek[],
  };
}

/** Inside a write that found no installation. */
export async function insertInstallation(session: Session, installation: Installation): Promise<void> {
  await session.run(
    `INSERT INTO installation (id, created_at, chain_key_wrapped, signing_seed_wrapped, signing_key)
       VALUES (1, $1, $2, $3, $4)`,
    installation.createdAt,
    installation.chainKeyWrapped,
    installation.signingSeedWrapped,
    JSON.stringify(installation.signingKey),
  );
  for (const kek of installation.keks) await insertKek(session, kek, installation.createdAt);
}

/** Inside a write. @returns false when others than `previous` are stored. */
export async function replaceSecrets(
  session: Session,
  secrets: WrappedSecrets,
  previous: WrappedSecrets,
): Promise<boolean> {
  const changed = await session.run(
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
export async function insertKek(session: Session, kek: KnownKek, addedAt: string): Promise<boolean> {
  const added = await session.run(
    'INSERT INTO keks (id, check_value, added_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
    kek.id,
    kek.checkValue,
    addedAt,
  );
  return added === 1;
}

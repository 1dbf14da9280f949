import assert from 'node:assert/strict';
import { type KeyObject, randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { PoolClient } from 'pg';
import { GENESIS } from '../../audit/chain.ts';
import type { LoadEntry, StoreEntry } from '../port.ts';
import type { Row } from '../row-records.ts';
import { headOf, recordsAfter } from './audit-table.ts';
import { storageError } from './failure.ts';
import { insertInstallation, readInstallation } from './installation-table.ts';
import { allVersions, keysAfter, putKey, putVersions } from './key-table.ts';
import type { Pools } from './pools.ts';
import { type Session, sessionOf } from './session.ts';
import { insertToken, tokensAfter } from './token-table.ts';
import { BufferedWriteSession, type WriteSession } from './write-session.ts';
import { BEGIN_WRITE, commit } from './writer.ts';

const BATCH = 500;
/** Keys that are read at once; each may have very many versions. */
const KEYS = 20;
/** How long a reader or writer of a whole store may be busy with something else, milliseconds. */
const IDLE_MS = 600_000;

const BE_PATIENT = `SET LOCAL idle_in_transaction_session_timeout = ${IDLE_MS}`;

/** Everything that there is at one moment, while others write. */
export async function* readAll(pools: Pools): AsyncGenerator<readonly StoreEntry[]> {
  const client = await pools.borrow();
  try {
    await client.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${BE_PATIENT}`);
    yield* allEntries(sessionOf(client));
  } catch (error) {
    throw storageError(error);
  } finally {
    // In the midst of a transaction, unless it was read to its end: it is not worth the difference.
    client.release(true);
  }
}

async function* allEntries(session: Session): AsyncGenerator<readonly StoreEntry[]> {
  const installation = await readInstallation(session);
  if (installation !== undefined) yield [{ kind: 'installation', installation }];
  for (let after = 0; ; ) {
    const records = await recordsAfter(session, after, BATCH);
    if (records.length === 0) break;
    yield records.map((record) => ({ kind: 'record', record }));
    after = records.at(-1)?.seq ?? after;
  }
  for (let after = ''; ; ) {
    const keys = await keysAfter(session, after, KEYS);
    if (keys.length === 0) break;
    const versions = await allVersions(
      session,
      keys.map(({ id }) => id),
    );
    yield keys.flatMap((key): StoreEntry[] => [
      { kind: 'key', key },
      ...(versions.get(key.id) ?? []).map((version) => ({ kind: 'version', version }) as const),
    ]);
    after = keys.at(-1)?.name ?? after;
  }
  for (let after = 0; ; ) {
    const tokens = await tokensAfter(session, after, BATCH);
    if (tokens.length === 0) break;
    yield tokens.map(({ token }) => ({ kind: 'token', token }));
    after = tokens.at(-1)?.number ?? after;
  }
}

/**
 * Fills an empty store, in one transaction that has the lock of the chain.
 *
 * @returns false, with `entries` not begun, when there is something in the store.
 */
export async function load(
  pools: Pools,
  entries: AsyncIterable<readonly LoadEntry[]>,
  chainKey: KeyObject,
): Promise<boolean> {
  const client = await pools.borrow();
  let isSound = false;
  try {
    const writeId = randomUUID();
    const session = await begin(client, chainKey, writeId).catch((error: unknown) => {
      throw storageError(error);
    });
    if (session === undefined) {
      await client.query('ROLLBACK');
      isSound = true;
      return false;
    }
    for await (const batch of entries) await put(session, batch);
    await finish(client, session);
    isSound = true;
    return true;
  } finally {
    client.release(!isSound);
  }
}

/** @returns undefined when there is something in the store. */
async function begin(
  client: PoolClient,
  chainKey: KeyObject,
  writeId: string,
): Promise<BufferedWriteSession | undefined> {
  const [, , heads] = (await client.query<Row>(`${BEGIN_WRITE}; ${BE_PATIENT}`)) as unknown as {
    rows: Row[];
  }[];
  const session = sessionOf(client);
  const head = headOf(heads?.rows[0]);
  const row = await session.row(
    'SELECT EXISTS (SELECT FROM keys) OR EXISTS (SELECT FROM tokens) OR EXISTS (SELECT FROM installation) AS taken',
  );
  if (head.seq !== GENESIS.seq || row?.['taken'] !== false) return undefined;
  return new BufferedWriteSession(session, chainKey, head, writeId);
}

async function finish(client: PoolClient, session: BufferedWriteSession): Promise<void> {
  assert((await readInstallation(session)) !== undefined, 'what is loaded has an installation');
  await commit(client).catch((error: unknown) => {
    throw storageError(error);
  });
}

async function put(session: BufferedWriteSession, batch: readonly LoadEntry[]): Promise<void> {
  try {
    for (const entry of batch) await putOne(session, entry);
    await session.flush();
  } catch (error) {
    throw error instanceof AppError ? error : storageError(error);
  }
}

async function putOne(session: WriteSession, entry: LoadEntry): Promise<void> {
  switch (entry.kind) {
    case 'installation':
      await insertInstallation(session, entry.installation);
      break;
    case 'record':
      session.take(entry.record);
      break;
    case 'new-record':
      session.append(entry.draft);
      break;
    case 'key':
      await putKey(session, entry.key);
      break;
    case 'version':
      await putVersions(session, [entry.version]);
      break;
    case 'token':
      await insertToken(session, entry.token);
  }
}

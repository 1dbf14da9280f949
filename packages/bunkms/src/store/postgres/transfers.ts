import assert from 'node:assert/strict';
import { type KeyObject, randomUUID } from 'node:crypto';
import type { PoolClient } from 'pg';
import { EntryReader, isEmpty, putEntries } from '../sql/entries.ts';
import { readInstallation } from '../sql/installation-table.ts';
import type { Repository } from '../sql/repository.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import { BufferedChain } from './chain.ts';
import { storageError } from './failure.ts';
import type { Pools } from './pools.ts';
import { runOn, type Session, sessionOf } from './session.ts';
import { beginWrite, commit } from './writer.ts';

/** How long a transfer of a whole store may pause between statements, milliseconds. */
const IDLE_MS = 600_000;

const BE_PATIENT = `SET LOCAL idle_in_transaction_session_timeout = ${IDLE_MS}`;

/** All entries of one snapshot, while others write. */
export async function* readAll(pools: Pools, repository: Repository): AsyncGenerator<readonly StoreEntry[]> {
  const client = await pools.borrow();
  try {
    await client.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${BE_PATIENT}`);
    yield* allEntries(sessionOf(client), repository);
  } catch (error) {
    throw storageError(error);
  } finally {
    // The connection may be within a transaction, so it is never reused.
    client.release(true);
  }
}

async function* allEntries(session: Session, repository: Repository): AsyncGenerator<readonly StoreEntry[]> {
  const reader = new EntryReader(repository);
  for (;;) {
    const batch = await runOn(session, reader.next());
    if (batch.length === 0) return;
    yield batch;
  }
}

/**
 * Fills an empty store in one transaction that holds the lock of the chain.
 *
 * @returns false, with `entries` not begun, when the store is not empty.
 */
export async function load(
  pools: Pools,
  repository: Repository,
  entries: AsyncIterable<readonly LoadEntry[]>,
  chainKey: KeyObject,
): Promise<boolean> {
  const client = await pools.borrow();
  let isSound = false;
  try {
    const chain = await begin(client, repository, chainKey).catch((error: unknown) => {
      throw storageError(error);
    });
    if (chain === undefined) {
      await client.query('ROLLBACK');
      isSound = true;
      return false;
    }
    for await (const batch of entries) await put(chain, repository, batch);
    await finish(client, chain);
    isSound = true;
    return true;
  } finally {
    client.release(!isSound);
  }
}

/** @returns undefined when the store is not empty. */
async function begin(
  client: PoolClient,
  repository: Repository,
  chainKey: KeyObject,
): Promise<BufferedChain | undefined> {
  const head = await beginWrite(client, chainKey, undefined, `; ${BE_PATIENT}`);
  const chain = new BufferedChain(sessionOf(client), chainKey, head, randomUUID());
  return (await chain.run(isEmpty(repository))) ? chain : undefined;
}

async function put(chain: BufferedChain, repository: Repository, batch: readonly LoadEntry[]): Promise<void> {
  try {
    await chain.run(putEntries(repository, chain, batch));
    await chain.flush();
  } catch (error) {
    throw storageError(error);
  }
}

async function finish(client: PoolClient, chain: BufferedChain): Promise<void> {
  assert((await chain.run(readInstallation())) !== undefined, 'loaded entries include an installation');
  await commit(client).catch((error: unknown) => {
    throw storageError(error);
  });
}

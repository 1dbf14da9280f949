import { randomBytes } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { ByteWriter } from '../engine/port/bytes.ts';
import { writeState } from '../engine/port/state.ts';
import { formatProjectFile } from '../engine/projects/project-file.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import { ARCHIVE_ID_BYTES, ARCHIVE_LABEL, type ArchiveHead, ArchiveWriter } from './archive.ts';

export interface BackupLimits {
  readonly limit: number;
  /** Sealed bytes after which a block ends. */
  readonly bytesMax: number;
}

export interface BackupDeps {
  readonly instances: Pick<InstanceManager, 'acquire'>;
  readonly clock: Clock;
  /** {@link BLOCK_LIMITS} by default; tests use smaller ones to get many blocks. */
  readonly limits?: BackupLimits;
}

/** Limits of one block. */
const BLOCK_LIMITS: BackupLimits = { limit: 1_000, bytesMax: 1_048_576 };

/** Maximum attempts at one block. */
const TRIES_MAX = 3;

/**
 * Backs up a project as of the moment of the last block, while others write: changed documents are written
 * again in later blocks. Documents keep their sealed bytes, so none is stored decrypted or re-sealed. The
 * project is held for one block at a time, so revoking its key ends the backup.
 *
 * @throws AppError of the project and its store, also from the generator; `project_not_found` before the
 *   first piece.
 */
export async function createBackup(
  project: string,
  { instances, clock, limits = BLOCK_LIMITS }: BackupDeps,
): Promise<AsyncGenerator<Buffer, void, void>> {
  const id = randomBytes(ARCHIVE_ID_BYTES);
  const head = await withProject(
    instances,
    project,
    async ({ cipher }): Promise<ArchiveHead> => ({
      project,
      id,
      keyVersion: cipher.version,
    }),
  );
  return writeBlocks(head, { instances, clock, limits });
}

async function* writeBlocks(
  head: ArchiveHead,
  { instances, clock, limits }: Required<BackupDeps>,
): AsyncGenerator<Buffer, void, void> {
  const writer = new ArchiveWriter(head);
  yield writer.begin();
  let entries = 0;
  for (let position = 0, isComplete = false; !isComplete; ) {
    yield await withProject(instances, head.project, async ({ store, cipher, file }) => {
      const key = cipher.subkey(head.keyVersion, ARCHIVE_LABEL, head.id);
      if (key === undefined) throw new AppError('key_missing');
      const page = await store.sealedChanges(position, limits);
      ({ position, isComplete } = page);
      entries += page.changes.length;
      const states = new ByteWriter(64 + page.changes.length * 160);
      for (const { state } of page.changes) writeState(states, state);
      const clear = Buffer.concat(page.changes.flatMap(({ sealed }) => sealed ?? []));
      const block = writer.block(key, { isLast: false, text: states.finish(), clear });
      if (!isComplete) return block;
      const end = new ByteWriter(32).u48(position).u48(page.forgotten).u48(entries).u48(clock.now());
      // Taken now: it names every key version that seals anything before.
      const last = { isLast: true, text: end.finish(), clear: formatProjectFile(file) };
      return Buffer.concat([block, writer.block(key, last)]);
    });
  }
}

async function withProject<T>(
  instances: BackupDeps['instances'],
  project: string,
  action: (lease: NonNullable<Awaited<ReturnType<InstanceManager['acquire']>>>) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    using lease = await instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    try {
      return await action(lease);
    } catch (error) {
      // Another node has added a key version, so the project must be reopened. Nothing of the block was
      // written yet.
      if (tries === TRIES_MAX || !lease.store.failed || !hasCode(error, 'storage_unavailable')) throw error;
    }
  }
}

import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import { readStoredMetadata } from '../crypto/stored-text.ts';
import { type BackupEnd, type RestoreSource, takeAll } from '../engine/moves/transfer-port.ts';
import { ByteReader } from '../engine/port/bytes.ts';
import { BackupDamaged } from '../engine/port/errors.ts';
import type { SealedChange } from '../engine/port/port.ts';
import { readState } from '../engine/port/state.ts';
import { openCipher, parseProjectFile } from '../engine/projects/project-file.ts';
import { type KeyExporter, leasing } from '../engine/projects/project-keys.ts';
import { ARCHIVE_LABEL, type ArchiveHead, type Block, openBlock, readArchive } from './archive.ts';

/** The clear facts of a complete backup. */
export interface BackupFacts {
  readonly head: ArchiveHead;
  readonly file: ProjectFile;
  readonly blocks: number;
  readonly bytes: number;
}

/**
 * Checks without a key that a backup is complete and unaltered.
 *
 * @param onProgress called with the number of bytes read.
 * @throws BackupDamaged
 */
export async function checkBackup(
  source: AsyncIterable<Uint8Array>,
  onProgress: (bytes: number) => void = () => undefined,
): Promise<BackupFacts> {
  let bytes = 0;
  const counted = (async function* () {
    for await (const piece of source) {
      bytes += piece.length;
      onProgress(bytes);
      yield piece;
    }
  })();
  const { head, blocks } = await readArchive(counted);
  let count = 0;
  let file: ProjectFile | undefined;
  for await (const { isLast, clear } of blocks) {
    count++;
    if (isLast) file = fileOf(head, clear);
  }
  if (file === undefined) throw new BackupDamaged('the backup has no end');
  return { head, file, blocks: count, bytes };
}

function fileOf({ project }: ArchiveHead, clear: Buffer): ProjectFile {
  try {
    return parseProjectFile(project, clear);
  } catch (cause) {
    throw new BackupDamaged('the project file in the backup is not one of its project', { cause });
  }
}

/**
 * The cipher of a backup's project.
 *
 * @throws AppError the error of the key service, `project_destroyed` and `key_not_found` for a key that is
 *   gone; `key_mismatch`.
 */
export async function cipherOf({ file }: BackupFacts, keys: KeyExporter): Promise<ProjectCipher> {
  return openCipher(file, await leasing(file.project, keys)(file));
}

/**
 * Decrypts a whole backup, and checks every document in it.
 *
 * @param take receives the changes of each block, in order; the last change of a document wins.
 * @throws BackupDamaged for anything that is not authentic.
 */
export async function openBackup(
  source: AsyncIterable<Uint8Array>,
  cipher: ProjectCipher,
  take: (changes: readonly SealedChange[]) => Promise<void>,
): Promise<BackupEnd> {
  return takeAll(changesIn(source, cipher), take);
}

/**
 * The decrypted changes of each block of a backup, in order, then its sealed end.
 *
 * @throws BackupDamaged for anything that is not authentic.
 */
async function* changesIn(
  source: AsyncIterable<Uint8Array>,
  cipher: ProjectCipher,
): AsyncGenerator<readonly SealedChange[], BackupEnd, void> {
  const { head, blocks } = await readArchive(source);
  const key = cipher.subkey(head.keyVersion, ARCHIVE_LABEL, head.id);
  if (key === undefined) throw new AppError('key_missing');
  let entries = 0;
  for await (const block of blocks) {
    const text = openBlock(key, head, block);
    if (block.isLast) {
      const reader = new ByteReader(text);
      const end = {
        lastSeq: reader.u48(),
        purgedSeq: reader.u48(),
        entries: reader.u48(),
        createdMs: reader.u48(),
      };
      if (end.entries !== entries) throw new BackupDamaged('the backup does not hold together');
      return end;
    }
    const changes = changesOf(cipher, block, text);
    entries += changes.length;
    yield changes;
  }
  throw new BackupDamaged('the backup has no end');
}

/**
 * The source from which an engine restores a project.
 *
 * @param open reads the backup from its start; it was checked before.
 */
export function restoreSource(
  { head, file }: BackupFacts,
  open: () => AsyncIterable<Uint8Array>,
  cipher: ProjectCipher,
): RestoreSource {
  return { file, id: head.id, cipher, changes: () => changesIn(open(), cipher) };
}

function changesOf(cipher: ProjectCipher, { number, clear }: Block, text: Buffer): SealedChange[] {
  const reader = new ByteReader(text);
  const changes: SealedChange[] = [];
  let at = 0;
  while (!reader.done) {
    const state = readState(reader);
    const sealed = state.deletedMs === 0 ? clear.subarray(at, at + state.size) : undefined;
    at += sealed?.length ?? 0;
    if (sealed !== undefined && !isEncryptionOf(cipher, state, sealed))
      throw new BackupDamaged(`a document in block ${number} of the backup does not open`);
    changes.push({ state, sealed });
  }
  if (at !== clear.length) throw new BackupDamaged('the backup does not hold together');
  return changes;
}

function isEncryptionOf(cipher: ProjectCipher, state: SealedChange['state'], sealed: Buffer): boolean {
  const fileName = state.fileName.toString('hex');
  if (cipher.fileName(state) !== fileName) return false;
  try {
    const text = cipher.openDocument(fileName, sealed, state.keyVersion);
    return readStoredMetadata(text, state)?._rev === state.rev.toString('hex');
  } catch {
    return false;
  }
}

import { randomUUID } from 'node:crypto';
import { CANDIDATES_MAX, generationSchema, storageIdSchema } from '@bundoc/shared/contract/storages';
import { TAKEN_OVER_MS_MAX } from '@bundoc/shared/contract/take-over-time';
import { StartRefused } from '@bundoc/shared/process/lifecycle';
import { z } from 'zod';

/** Below the data folder. */
export const STORAGE_FILE = 'storage.json';
/** Its length with few candidates: a sector, which disks write atomically. */
export const STORAGE_FILE_BYTES = 512;

const FORMAT = 2;

const storageFileSchema = z.strictObject({
  format: z.literal(FORMAT),
  id: storageIdSchema,
  /** The last generation that BunKMS confirmed. */
  generation: generationSchema.optional(),
  /** Generations that BunKMS may have instead, oldest first. */
  candidates: z.array(generationSchema).max(CANDIDATES_MAX),
  /** The last take-over, as of BunKMS, when lost projects were last looked for; 0 for none. */
  takenOverMs: z.int().nonnegative(),
  /** Only in files: when an administrator last accepted the loss of frames of unknown projects. */
  lossAcceptedMs: z.int().nonnegative().max(TAKEN_OVER_MS_MAX).optional(),
  /** Only in files: the log was created, so a missing one was lost. */
  log: z.literal(true).optional(),
});
/**
 * The identity of a storage (docs/formats/storage.md): `storage.json`, or the row of `bundoc.storage`. In the
 * clear and not secret.
 */
export type StorageFile = z.infer<typeof storageFileSchema>;

export function newStorageFile(): StorageFile {
  return { format: FORMAT, id: randomUUID(), candidates: [], takenOverMs: 0 };
}

/** One line, padded to a sector if it fits, so that it can be overwritten in place. */
export function formatStorageFile(file: StorageFile): string {
  return `${JSON.stringify(storageFileSchema.parse(file)).padEnd(STORAGE_FILE_BYTES - 1)}\n`;
}

const otherFormatSchema = z.object({ format: z.int().positive() });

/** @param place its name for the operator. @throws StartRefused for any other content. */
export function parseStorageFile(place: string, content: string): StorageFile {
  let parsed: unknown;
  try {
    parsed = JSON.parse(content);
    return storageFileSchema.parse(parsed);
  } catch (error) {
    const other = otherFormatSchema.safeParse(parsed);
    if (other.success && other.data.format !== FORMAT) {
      throw new StartRefused(
        `${place} has the format ${other.data.format} of another version: export its projects with that version by bundoc export, start with an empty storage, and import them`,
        { cause: error },
      );
    }
    throw new StartRefused(
      `${place} is damaged. It says which storage this is, so it is not made again: restore it from a backup of this storage`,
      { cause: error },
    );
  }
}

/** The refusal of a storage with projects and without an identity. */
export function storageIdMissing(place: string): StartRefused {
  return new StartRefused(
    `${place} is missing, and there are projects. Restore it from a backup of this storage`,
  );
}

/** Maximum attempts of one advance while other processes are faster. */
export const ADVANCE_TRIES_MAX = 8;

/** Repository of a storage's identity. */
export interface StorageIdentity {
  /** Reads the current file. @throws AppError of the storage. */
  read(): Promise<StorageFile>;
  /**
   * Changes the file durably, without interference from others.
   *
   * @returns the new file.
   * @throws AppError of the storage.
   */
  change(change: (present: StorageFile) => StorageFile): Promise<StorageFile>;
  /** The age of the last change by any process, seconds. */
  ageS(): Promise<number>;
}

/** Without what lets a copy act as the storage: BunKMS refuses it until an administrator takes over. */
export function withoutGeneration({ generation: _, ...file }: StorageFile): StorageFile {
  return { ...file, candidates: [] };
}

/** All generations that BunKMS may have. */
export function generationsOf({ generation, candidates }: StorageFile): string[] {
  return generation === undefined ? [...candidates] : [generation, ...candidates];
}

/**
 * Adds a generation that BunKMS may have soon. The oldest candidate is dropped when there are too many; the
 * confirmed one never is.
 */
export function withCandidate(file: StorageFile, candidate: string): StorageFile {
  if (file.candidates.includes(candidate)) return file;
  return { ...file, candidates: [...file.candidates, candidate].slice(1 - CANDIDATES_MAX) };
}

/**
 * Records that BunKMS had `generation` at some time. This ends all earlier generations, unless `generation`
 * has already ended.
 */
export function withConfirmed(file: StorageFile, generation: string): StorageFile {
  const at = file.candidates.indexOf(generation);
  if (at === -1) return file;
  return { ...file, generation, candidates: file.candidates.slice(at + 1) };
}

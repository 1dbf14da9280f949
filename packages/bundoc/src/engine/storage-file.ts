import { randomUUID } from 'node:crypto';
import { CANDIDATES_MAX, generationSchema, storageIdSchema } from '@bundoc/shared/contract/storages';
import { StartRefused } from '@bundoc/shared/runtime/lifecycle';
import { z } from 'zod';

/** Below the data folder. */
export const STORAGE_FILE = 'storage.json';
/** Its length while few generations are candidates: a sector, which disks write whole or not at all. */
export const STORAGE_FILE_BYTES = 512;

const storageFileSchema = z.strictObject({
  format: z.literal(1),
  id: storageIdSchema,
  /** The last that BunKMS has confirmed. */
  generation: generationSchema.optional(),
  /** Those that BunKMS may have instead, oldest first. */
  candidates: z.array(generationSchema).max(CANDIDATES_MAX),
  takeOvers: z.int().nonnegative(),
  /** In files: the log was made, so one that is missing was lost. */
  log: z.literal(true).optional(),
});
/**
 * Which storage this is (docs/formats/storage.md): `storage.json`, or the row of `bundoc.storage`. In the
 * clear, nothing secret.
 */
export type StorageFile = z.infer<typeof storageFileSchema>;

export function newStorageFile(): StorageFile {
  return { format: 1, id: randomUUID(), candidates: [], takeOvers: 0 };
}

/** On one line that is filled up to a sector, if it fits: then it can be overwritten in its place. */
export function formatStorageFile(file: StorageFile): string {
  return `${JSON.stringify(storageFileSchema.parse(file)).padEnd(STORAGE_FILE_BYTES - 1)}\n`;
}

/** @param place what the operator calls it. @throws StartRefused for any other content. */
export function parseStorageFile(place: string, content: string): StorageFile {
  try {
    return storageFileSchema.parse(JSON.parse(content));
  } catch (error) {
    throw new StartRefused(
      `${place} is damaged. It says which storage this is, so it is not made again: restore it from a backup of this storage`,
      { cause: error },
    );
  }
}

/** That nothing says which storage this is, though there are projects. */
export function unidentified(place: string): StartRefused {
  return new StartRefused(
    `${place} is missing, and there are projects. If it was lost, restore it from a backup of this storage. If an earlier build wrote the projects, export them with that build (bundoc export), start with an empty storage, and import them`,
  );
}

/** That the projects of a data folder are of a build from before there was one log for them. */
export function ofEarlierBuild(dataDir: string): StartRefused {
  return new StartRefused(
    `${dataDir} was written by an earlier build, which this one does not read. Export the projects with that build (bundoc export, or bundoc backup), start with an empty storage, and import or restore them`,
  );
}

/** How often one advance follows other processes that were faster. */
export const ADVANCE_TRIES_MAX = 8;

/** Where it is kept which storage this is. */
export interface StorageIdentity {
  /** What stands there now. @throws AppError of the storage. */
  read(): Promise<StorageFile>;
  /**
   * Changes it, durably, from what nobody else changes meanwhile.
   *
   * @returns what stands there then.
   * @throws AppError of the storage.
   */
  change(change: (present: StorageFile) => StorageFile): Promise<StorageFile>;
  /** How long ago it was changed last, by whichever process has it now, seconds. */
  ageS(): Promise<number>;
}

/** All generations that BunKMS may have. */
export function generationsOf({ generation, candidates }: StorageFile): string[] {
  return generation === undefined ? [...candidates] : [generation, ...candidates];
}

/**
 * With one more that BunKMS may have soon; the oldest one goes when there are too many, and never the one
 * that is confirmed.
 */
export function withCandidate(file: StorageFile, candidate: string): StorageFile {
  if (file.candidates.includes(candidate)) return file;
  return { ...file, candidates: [...file.candidates, candidate].slice(1 - CANDIDATES_MAX) };
}

/**
 * BunKMS had `generation` at some time. Those that were written before are over; unless it is over itself.
 */
export function withConfirmed(file: StorageFile, generation: string, takeOvers: number): StorageFile {
  const counted = { ...file, takeOvers };
  const at = file.candidates.indexOf(generation);
  if (at === -1) return counted;
  return { ...counted, generation, candidates: file.candidates.slice(at + 1) };
}

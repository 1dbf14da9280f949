import { freeMemory } from '@bundoc/shared/process/free-memory';
import { LRUCache } from 'lru-cache';
import { copyOf } from '../../../work/large-bytes.ts';

/**
 * An LRU of the sealed bytes of documents that were read, for all projects. It contains no plaintext.
 *
 * Writes do not enter it: a long import must not evict hot documents, and unwritten files are in memory
 * anyway.
 *
 * The cache owns its buffers, and frees the large ones that it gives up. Otherwise reads of many large
 * documents would start one collection of garbage after another.
 */
export interface SealedCache {
  /** The caller may use the bytes until it returns to the event loop; later, they may be freed. */
  get(project: string, fileName: string): Buffer | undefined;
  /** Takes the buffer over: it may be freed at once. */
  set(project: string, fileName: string, sealed: Buffer): void;
  /** Replaces an existing entry with a copy; does nothing without one. */
  update(project: string, fileName: string, sealed: Buffer): void;
  delete(project: string, fileName: string): void;
  /** Deletes the entries of a removed project. It visits all entries. */
  deleteAll(project: string): void;
}

/** 16 bytes in hex. */
const FILE_NAME_LENGTH = 32;
/** Memory of an entry besides its bytes. */
const ENTRY_BYTES = 200;

/** @param bytesMax 0 disables the cache. */
export function createSealedCache(bytesMax: number): SealedCache {
  if (bytesMax === 0)
    return {
      get: () => undefined,
      set: (_project, _fileName, sealed) => freeMemory(sealed),
      update: () => undefined,
      delete: () => undefined,
      deleteAll: () => undefined,
    };
  const cache = new LRUCache<string, Buffer>({
    maxSize: bytesMax,
    sizeCalculation: (sealed) => sealed.length + ENTRY_BYTES,
    dispose: (sealed) => freeMemory(sealed),
  });
  const put = (name: string, sealed: Buffer): void => {
    cache.set(name, sealed);
    // It keeps no entry that is larger than itself.
    if (sealed.length + ENTRY_BYTES > bytesMax) freeMemory(sealed);
  };
  return {
    get: (project, fileName) => cache.get(project + fileName),
    set: (project, fileName, sealed) => put(project + fileName, sealed),
    update: (project, fileName, sealed) => {
      if (cache.has(project + fileName)) put(project + fileName, copyOf(sealed));
    },
    delete: (project, fileName) => {
      cache.delete(project + fileName);
    },
    deleteAll: (project) => {
      // All file names have one length, so no other project's entry has a key that matches.
      const length = project.length + FILE_NAME_LENGTH;
      for (const name of [...cache.keys()])
        if (name.length === length && name.startsWith(project)) cache.delete(name);
    },
  };
}

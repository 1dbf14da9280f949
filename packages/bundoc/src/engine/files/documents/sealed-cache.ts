import { LRUCache } from 'lru-cache';

/**
 * Sealed bytes of documents of all projects that were read, the ones used longest ago going first. Nothing in
 * it is readable.
 *
 * What is only written does not come in: a long import must not push out what is read all the time, and until
 * its file is written it is in memory anyway.
 */
export interface SealedCache {
  get(project: string, fileName: string): Buffer | undefined;
  set(project: string, fileName: string, sealed: Buffer): void;
  /** Puts a copy in the place of what is there; nothing happens when there is nothing. */
  update(project: string, fileName: string, sealed: Buffer): void;
  delete(project: string, fileName: string): void;
  /** Of a project that is no more. It looks at all that is there. */
  deleteAll(project: string): void;
}

/** 16 bytes in hex. */
const FILE_NAME_LENGTH = 32;
/** What an entry costs besides its bytes. */
const ENTRY_BYTES = 200;

/** @param bytesMax 0 turns it off. */
export function createSealedCache(bytesMax: number): SealedCache {
  if (bytesMax === 0)
    return {
      get: () => undefined,
      set: () => undefined,
      update: () => undefined,
      delete: () => undefined,
      deleteAll: () => undefined,
    };
  const cache = new LRUCache<string, Buffer>({
    maxSize: bytesMax,
    sizeCalculation: (sealed) => sealed.length + ENTRY_BYTES,
  });
  return {
    get: (project, fileName) => cache.get(project + fileName),
    set: (project, fileName, sealed) => {
      cache.set(project + fileName, sealed);
    },
    update: (project, fileName, sealed) => {
      const name = project + fileName;
      if (!cache.has(name)) return;
      const copy = Buffer.allocUnsafeSlow(sealed.length);
      sealed.copy(copy);
      cache.set(name, copy);
    },
    delete: (project, fileName) => {
      cache.delete(project + fileName);
    },
    deleteAll: (project) => {
      // File names are all of one length, so that no other project's entry looks like one of this one.
      const length = project.length + FILE_NAME_LENGTH;
      for (const name of [...cache.keys()])
        if (name.length === length && name.startsWith(project)) cache.delete(name);
    },
  };
}

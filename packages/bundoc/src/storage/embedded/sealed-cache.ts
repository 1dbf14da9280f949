import { LRUCache } from 'lru-cache';

/** Sealed bytes of documents of all projects, the ones used longest ago going first. Nothing in it is readable. */
export interface SealedCache {
  get(project: string, fileName: string): Buffer | undefined;
  set(project: string, fileName: string, sealed: Buffer): void;
  delete(project: string, fileName: string): void;
}

/** What an entry costs besides its bytes. */
const ENTRY_BYTES = 200;

/** @param bytesMax 0 turns it off. */
export function createSealedCache(bytesMax: number): SealedCache {
  if (bytesMax === 0) return { get: () => undefined, set: () => undefined, delete: () => undefined };
  const cache = new LRUCache<string, Buffer>({
    maxSize: bytesMax,
    sizeCalculation: (sealed) => sealed.length + ENTRY_BYTES,
  });
  return {
    get: (project, fileName) => cache.get(project + fileName),
    set: (project, fileName, sealed) => {
      cache.set(project + fileName, sealed);
    },
    delete: (project, fileName) => {
      cache.delete(project + fileName);
    },
  };
}

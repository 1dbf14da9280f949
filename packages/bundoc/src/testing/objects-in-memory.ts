import { type ObjectStorage, ObjectStorageError } from '@bundoc/shared/object-storage/port';

/** How an upload fails. */
export type UploadFault = 'lost' | 'done but reported as failed';

/** An object storage whose uploads can fail. */
export class ObjectsInMemory implements ObjectStorage {
  readonly name = 'memory';
  readonly objects = new Map<string, Buffer>();
  /** The faults of the next uploads; undefined for none. */
  readonly faults: (UploadFault | undefined)[] = [];

  async put(key: string, body: Uint8Array): Promise<void> {
    const fault = this.faults.shift();
    const known = this.objects.get(key);
    if (known !== undefined && !known.equals(body)) throw new ObjectStorageError('conflict', `${key} exists`);
    if (fault !== 'lost') this.objects.set(key, Buffer.from(body));
    if (fault !== undefined) throw new ObjectStorageError('unavailable', 'the storage does not answer');
  }

  async get(
    key: string,
    { range }: { readonly range?: { readonly at: number; readonly bytes: number } },
  ): Promise<Buffer | undefined> {
    const object = this.objects.get(key);
    return range === undefined ? object : object?.subarray(range.at, range.at + range.bytes);
  }

  async *list(prefix: string, after = ''): AsyncGenerator<{ readonly key: string; readonly bytes: number }> {
    for (const key of [...this.objects.keys()].sort())
      if (key.startsWith(prefix) && key > after) yield { key, bytes: this.objects.get(key)?.length ?? 0 };
  }

  async delete(key: string): Promise<void> {
    this.objects.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.objects.clear();
  }
}

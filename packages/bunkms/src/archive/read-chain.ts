import { parseJson } from '@bundoc/shared/json/parse-json';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { z } from 'zod';
import { BATCH } from '../audit/ship/shipper.ts';
import { DamagedFile } from '../recovery/errors.ts';
import { chainPrefix, parseRecordsName, type RecordsName, recordsFrom } from './names.ts';
import { foldersBelow, readObject } from './read-backups.ts';

/** What is read of a line. A restore verifies the rest by the chain key. */
const lineSchema = z.object({ seq: z.int().positive(), prev_hash: z.string(), hash: z.string() });
const EPOCH = /^\d{16}$/;

interface RecordsObject extends RecordsName {
  readonly key: string;
  readonly epoch: string;
}

/** The epochs of a chain in order. @throws ObjectStorageError. */
async function epochsOf(objects: ObjectStorage, installation: string): Promise<readonly string[]> {
  const epochs: string[] = [];
  for await (const name of foldersBelow(objects, chainPrefix(installation)))
    if (EPOCH.test(name)) epochs.push(name);
  return epochs;
}

/** The objects of an epoch with records from a number on, by their first one. @throws ObjectStorageError. */
async function* objectsFrom(
  objects: ObjectStorage,
  installation: string,
  epoch: string,
  seq: number,
): AsyncGenerator<RecordsObject> {
  const prefix = `${chainPrefix(installation)}${epoch}/`;
  // The object with the record begins at most a batch before it.
  for await (const { key } of objects.list(prefix, prefix + recordsFrom(seq - BATCH))) {
    const name = parseRecordsName(key.slice(prefix.length));
    if (name !== undefined && name.last >= seq) yield { key, epoch, ...name };
  }
}

/**
 * The last record of the newest epoch, as names of objects say; 0 for none. It may be before the end of an
 * earlier epoch, of which a restore has lost records.
 *
 * @param seq is where to begin to look.
 * @throws ObjectStorageError.
 */
export async function lastRecord(objects: ObjectStorage, installation: string, seq: number): Promise<number> {
  const newest = (await epochsOf(objects, installation)).at(-1);
  if (newest === undefined) return 0;
  let last = 0;
  for await (const found of objectsFrom(objects, installation, newest, seq))
    last = Math.max(last, found.last);
  return last > 0 || seq === 0 ? last : await lastRecord(objects, installation, 0);
}

/**
 * The lines of the chain from a record on, as an audit copy has them: those of each epoch, each once. An
 * epoch that begins before the end of the former one is another end of the chain. The last one counts.
 *
 * @param seq the last record of the backup.
 * @throws DamagedFile when an object is damaged, when records are missing, or when two stores wrote one
 *   epoch; ObjectStorageError.
 */
export async function* linesFrom(
  objects: ObjectStorage,
  installation: string,
  seq: number,
): AsyncGenerator<Buffer> {
  const hashes = new Map<number, string>();
  for (const epoch of await epochsOf(objects, installation)) {
    let last: number | undefined;
    for await (const { key, hash } of objectsFrom(objects, installation, epoch, seq)) {
      const text = (await readObject(objects, key, hash)).toString('utf8');
      for (const line of text.split('\n')) {
        const record = lineSchema.safeParse(parseJson(line)).data;
        if (record === undefined || record.seq < seq) continue;
        if (last !== undefined && record.seq <= last) {
          if (hashes.get(record.seq) === record.hash) continue;
          throw new DamagedFile(
            `${objects.name}: ${key} has another record ${record.seq} than the objects before it: two stores of one installation wrote to it`,
          );
        }
        const before = record.seq - 1;
        const isNext = (last ?? before) === before && hashes.get(before) === record.prev_hash;
        if (record.seq > seq && !isNext)
          throw new DamagedFile(
            `${objects.name}: ${key} does not continue the audit chain: record ${(last ?? seq - 1) + 1} is missing, or another store wrote to it`,
          );
        hashes.set(record.seq, record.hash);
        last = record.seq;
        yield Buffer.from(`${line}\n`);
      }
    }
  }
}

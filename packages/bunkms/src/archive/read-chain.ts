import { parseJson } from '@bundoc/shared/json/parse-json';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { z } from 'zod';
import { BATCH } from '../audit/ship/shipper.ts';
import { DamagedFile } from '../recovery/errors.ts';
import { chainPrefix, epochName, parseRecordsName, recordsFrom } from './names.ts';
import { foldersBelow, readObject } from './read-backups.ts';

/** What is read of a line. A restore verifies the rest by the chain key. */
const lineSchema = z.object({ seq: z.int().positive(), prev_hash: z.string(), hash: z.string() });
const EPOCH = /^\d{16}$/;

interface RecordsObject {
  readonly key: string;
  readonly epoch: string;
  readonly first: number;
  readonly last: number;
  readonly hash: string;
}

/** The objects with records from a number on, by epoch and first record. @throws ObjectStorageError. */
async function* objectsFrom(
  objects: ObjectStorage,
  installation: string,
  seq: number,
): AsyncGenerator<RecordsObject> {
  const chain = chainPrefix(installation);
  for await (const epoch of foldersBelow(objects, chain)) {
    if (!EPOCH.test(epoch)) continue;
    const prefix = `${chain}${epoch}/`;
    // The object with the record begins at most a batch before it.
    for await (const { key } of objects.list(prefix, prefix + recordsFrom(seq - BATCH))) {
      const name = parseRecordsName(key.slice(prefix.length));
      if (name !== undefined && name.last >= seq) yield { key, epoch, ...name };
    }
  }
}

/** The last record of the newest epoch, as names of objects say; 0 for none. @throws ObjectStorageError. */
export async function lastRecord(objects: ObjectStorage, installation: string, seq: number): Promise<number> {
  let [newest, last] = [epochName(0), 0];
  for await (const { epoch, last: found } of objectsFrom(objects, installation, seq)) {
    last = epoch === newest ? Math.max(last, found) : found;
    newest = epoch;
  }
  return last;
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
  let epoch: string | undefined;
  let last: number | undefined;
  for await (const object of objectsFrom(objects, installation, seq)) {
    if (object.epoch !== epoch) last = undefined;
    epoch = object.epoch;
    const text = (await readObject(objects, object.key, object.hash)).toString('utf8');
    for (const line of text.split('\n')) {
      const record = lineSchema.safeParse(parseJson(line)).data;
      if (record === undefined || record.seq < seq) continue;
      if (last !== undefined && record.seq <= last) {
        if (hashes.get(record.seq) === record.hash) continue;
        throw new DamagedFile(
          `${objects.name}: ${object.key} has another record ${record.seq} than the objects before it: two stores of one installation wrote to it`,
        );
      }
      const before = record.seq - 1;
      const follows = last === undefined || last === before;
      if (record.seq > seq && !(follows && hashes.get(before) === record.prev_hash))
        throw new DamagedFile(
          `${objects.name}: ${object.key} does not continue the audit chain: record ${(last ?? seq - 1) + 1} is missing, or another store wrote to it`,
        );
      hashes.set(record.seq, record.hash);
      last = record.seq;
      yield Buffer.from(`${line}\n`);
    }
  }
}

import { parseJson } from '@bundoc/shared/json/parse-json';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { z } from 'zod';
import type { CopiedPlace, Position } from '../audit/ship/position.ts';
import { BATCH } from '../audit/ship/shipper.ts';
import { installationOf } from '../recovery/backup-folder.ts';
import { DamagedFile } from '../recovery/errors.ts';
import type { AuditStore } from '../store/audit.ts';
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

/** The object with the last record of the newest epoch. @throws ObjectStorageError. */
async function newestObject(
  objects: ObjectStorage,
  installation: string,
  near: number,
): Promise<RecordsObject | undefined> {
  const epoch = (await epochsOf(objects, installation)).at(-1);
  if (epoch === undefined) return undefined;
  for (let back = 0; ; back = BATCH + back * 4) {
    const from = Math.max(0, near - back);
    let newest: RecordsObject | undefined;
    for await (const object of objectsFrom(objects, installation, epoch, from))
      if (object.last >= (newest?.last ?? 0)) newest = object;
    if (newest !== undefined || from === 0) return newest;
  }
}

/**
 * The last record of the newest epoch, as names of objects say; 0 for none. It may be before the end of an
 * earlier epoch, of which a restore has lost records.
 *
 * @param near a number near which it is expected.
 * @throws ObjectStorageError.
 */
export async function lastRecord(
  objects: ObjectStorage,
  installation: string,
  near: number,
): Promise<number> {
  return (await newestObject(objects, installation, near))?.last ?? 0;
}

/**
 * A position that is taken from the archive when its file is missing, as on a new machine. The archive is not
 * trusted, so its last record counts only if the store has it.
 */
export function resumedPosition(
  file: Position,
  objects: ObjectStorage,
  store: Pick<AuditStore, 'listAudit' | 'auditHead'>,
): Position {
  const placeInArchive = async (): Promise<CopiedPlace | undefined> => {
    const installation = await installationOf(store);
    const newest = await newestObject(objects, installation, (await store.auditHead()).seq);
    if (newest === undefined) return undefined;
    const [own] = (await store.listAudit({ after: newest.last - 1, limit: 1 })).items;
    const text = (await readObject(objects, newest.key, newest.hash)).toString('utf8');
    const last = lineSchema.safeParse(parseJson(text.trimEnd().split('\n').at(-1) ?? '')).data;
    if (own === undefined || last?.seq !== own.seq || last.hash !== own.hash) return undefined;
    return { seq: own.seq, hash: own.hash, epoch: Number(newest.epoch) };
  };
  return {
    read: async () => {
      const known = await file.read();
      return known.seq > 0 ? known : ((await placeInArchive()) ?? known);
    },
    write: file.write,
  };
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
): AsyncGenerator<{ readonly line: Buffer; readonly record: number }> {
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
        yield { line: Buffer.from(`${line}\n`), record: last };
      }
    }
  }
}

import { type Command, command, parserOf } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { ArchiveReader, type Chain, idIn, type ListedObject } from '../engine/files/archive/lineage.ts';
import { ArchiveDamaged, objectKey, parseObjectName, storagePrefix } from '../engine/files/archive/object.ts';

const VARIABLE = 'BUNDOC_ARCHIVE';
const STORAGE_FOLDER = /^[0-9a-f]{32}$/;
/** After all characters of keys. */
const LAST = '~';

export interface PlaceOptions {
  readonly from?: string | undefined;
  /** A UUID. */
  readonly storage?: string | undefined;
}

/** The archive of one storage. */
export interface StorageArchive {
  readonly objects: ObjectStorage;
  /** A UUID. */
  readonly storage: string;
  /** 16 bytes. */
  readonly storageId: Buffer;
  readonly reader: ArchiveReader;
}

/** A command with the option that says where the archive is. */
export function placeCommand(parent: Command, name: string, description: string) {
  return command(parent, name, description).option(
    '--from <place>',
    'the archive: a folder, or s3://bucket/prefix?…; BUNDOC_ARCHIVE by default',
  );
}

/** A command that works on the archive of one storage. */
export function archiveCommand(parent: Command, name: string, description: string) {
  return placeCommand(parent, name, description).option(
    '--storage <id>',
    'the storage, if the archive has several',
    parserOf(storageIdSchema),
  );
}

/** Opens the place of archives. It reads no other setting of the service, which a new machine may lack. */
export function openPlace(environment: Environment, from: string | undefined): ObjectStorage {
  const setting = from ?? environment[VARIABLE];
  if (setting === undefined || setting === '')
    throw new CommandError(`name the archive: --from <folder or s3://bucket/prefix>, or ${VARIABLE}`);
  const variable = from === undefined ? VARIABLE : '--from';
  return openObjectStorage(setting, { variable, environment, clock: systemClock });
}

export function archiveOf(objects: ObjectStorage, storage: string): StorageArchive {
  const storageId = Buffer.from(storage.replaceAll('-', ''), 'hex');
  return { objects, storage, storageId, reader: new ArchiveReader(objects, storageId) };
}

/**
 * Runs `action` with the archive of the storage that the options name, or of the only one.
 *
 * @throws CommandError when there is none or more than one, and with exit code 1 for a damaged archive;
 *   ObjectStorageError; ConfigError.
 */
export async function withArchive<T>(
  environment: Environment,
  { from, storage }: PlaceOptions,
  action: (archive: StorageArchive) => Promise<T>,
): Promise<T> {
  await using objects = openPlace(environment, from);
  const archive = archiveOf(objects, await chooseStorage(objects, storage));
  try {
    return await action(archive);
  } catch (cause) {
    if (!(cause instanceof ArchiveDamaged)) throw cause;
    const line = `the archive is damaged: ${cause.message}; "bundoc archive verify" names every fault, and a moment that can be restored (--at)`;
    throw new CommandError(line, { cause, exitCode: 1 });
  }
}

async function chooseStorage(objects: ObjectStorage, named: string | undefined): Promise<string> {
  const present = await storagesIn(objects);
  const [only] = present;
  if (only === undefined) throw new CommandError(`${objects.name} has no archive of Bundoc`);
  const storage = named ?? (present.length === 1 ? only : undefined);
  if (storage === undefined)
    throw new CommandError(
      `${objects.name} has archives of several storages: name one by --storage: ${present.join(', ')}`,
    );
  if (!present.includes(storage))
    throw new CommandError(
      `${objects.name} has no archive of the storage ${storage}, but of ${present.join(', ')}`,
    );
  return storage;
}

/** The storages that have objects. Asks for one list each, however many objects there are. */
export async function storagesIn(objects: ObjectStorage): Promise<readonly string[]> {
  const storages: string[] = [];
  for (let after = ''; ; ) {
    const key = await firstKey(objects, after);
    if (key === undefined) return storages;
    const [first = '', rest] = key.split('/', 2);
    if (rest !== undefined && STORAGE_FOLDER.test(first)) storages.push(uuidOf(first));
    after = rest === undefined ? key : `${first}/${LAST}`;
  }
}

async function firstKey(objects: ObjectStorage, after: string): Promise<string | undefined> {
  for await (const { key } of objects.list('', after)) return key;
  return undefined;
}

/** @param hex 32 digits. */
export function uuidOf(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * The objects that are present, in order.
 *
 * @param chain all objects of the storage when undefined.
 */
export async function* objectsIn(
  { objects, storageId }: StorageArchive,
  chain: Chain | undefined,
  first = 0,
  last = Number.POSITIVE_INFINITY,
): AsyncGenerator<ListedObject> {
  const prefix = storagePrefix(storageId);
  const after = first === 0 ? prefix : objectKey(storageId, { n: first - 1, epoch: LAST });
  for await (const { key, bytes } of objects.list(prefix, after)) {
    const id = parseObjectName(key.slice(prefix.length));
    if (id === undefined) continue;
    if (id.n > last) return;
    if (chain === undefined || idIn(chain, id.n)?.epoch === id.epoch) yield { id, bytes };
  }
}

/** A moment as commands print and accept it. */
export function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

import { Checkup, checkClock } from '@bundoc/shared/cli/checkup';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { readSmallSync } from '@bundoc/shared/files/small-files';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { Environment } from '@bundoc/shared/process/config';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { parseStorageFile, STORAGE_FILE } from '../engine/identity/storage-file.ts';
import { SMALL_FILE_BYTES_MAX } from '../engine/projects/project-file.ts';
import { storagesIn } from './archive-place.ts';

/** Nothing in an archive is overwritten or deleted, so it is always the same object. */
const KEY = 'doctor/check';
const CONTENT = Buffer.from('bundoc doctor writes this object to see whether the archive takes one\n');

interface CheckedArchive {
  /** BUNDOC_ARCHIVE. */
  readonly place: string;
  readonly dataDir: string;
  readonly clock: Clock;
}

/** Checks what the service needs of its archive: PUT, GET, LIST and the clock, and no foreign storage. */
export async function checkArchive(
  checkup: Checkup,
  { place, dataDir, clock }: CheckedArchive,
  environment: Environment,
): Promise<void> {
  const found = new Checkup();
  const variable = 'BUNDOC_ARCHIVE';
  const objects = await found.try('place', `correct ${variable}`, () =>
    openObjectStorage(place, { variable, environment, clock, dataDir }),
  );
  if (objects !== undefined) {
    await using opened = objects;
    await checkRights(found, opened);
    if (opened.lastAnswer !== undefined) checkClock(found, opened.name, opened.lastAnswer);
    await checkStorages(found, opened, dataDir);
  }
  checkup.add('archive', found);
}

const RIGHTS =
  'correct what it says; the credential of the service needs PUT, GET and LIST (docs/how-to/archive.md)';

async function checkRights(found: Checkup, objects: ObjectStorage): Promise<void> {
  const { name } = objects;
  await found.try('put', RIGHTS, async () => {
    await objects.put(KEY, CONTENT);
    found.ok('put', `${name} stores an object`);
  });
  // Each question to a target that does not answer takes a minute.
  if (isSilent(found, objects)) return;
  await found.try('get', RIGHTS, async () => {
    const read = await objects.get(KEY, { maxBytes: CONTENT.length });
    if (read?.equals(CONTENT)) found.ok('get', `${name} gives it back`);
    else found.fail('get', `${name} has ${read ? 'other bytes as' : 'no object'} ${KEY}`, RIGHTS);
  });
  await found.try('list', RIGHTS, async () => {
    for await (const { key } of objects.list(KEY))
      if (key === KEY) return found.ok('list', `${name} lists it`);
    found.fail('list', `${name} does not list ${KEY}`, RIGHTS);
  });
}

function isSilent(found: Checkup, objects: ObjectStorage): boolean {
  // A folder gives no dated answers.
  return found.hasFailed('put') && 'lastAnswer' in objects && objects.lastAnswer === undefined;
}

async function checkStorages(found: Checkup, objects: ObjectStorage, dataDir: string): Promise<void> {
  if (found.hasFailed('list') || isSilent(found, objects)) return;
  await found.try('storage', 'correct BUNDOC_DATA_DIR', async () => {
    const own = ownStorage(dataDir);
    const present = await storagesIn(objects);
    const foreign = present.filter((storage) => storage !== own);
    if (foreign.length > 0) {
      const remedy = 'give each data folder a prefix of its own, unless these are former ones';
      found.warn('storage', `${objects.name} also has objects of ${foreign.join(', ')}`, remedy);
    } else if (own === undefined || !present.includes(own))
      found.ok('storage', `${objects.name} has no object of a storage yet`);
    else found.ok('storage', `${objects.name} has objects of this storage alone, ${own}`);
  });
}

/** The storage of a data folder; undefined before its first start. @throws an error of the file system. */
export function ownStorage(dataDir: string): string | undefined {
  using folder = DataFolder.open(dataDir);
  const content = readSmallSync(folder, STORAGE_FILE, SMALL_FILE_BYTES_MAX);
  return content && parseStorageFile(STORAGE_FILE, content.toString()).id;
}

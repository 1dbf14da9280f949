import { join } from 'node:path';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { factLines, type JsonOption, print } from '@bundoc/shared/cli/print';
import { codeOf, DataFolder } from '@bundoc/shared/files/data-folder';
import { readSmallSync } from '@bundoc/shared/files/small-files';
import { type ObjectStorage, ObjectStorageError } from '@bundoc/shared/object-storage/port';
import type { Environment } from '@bundoc/shared/process/config';
import { type Chain, idIn } from '../engine/files/archive/lineage.ts';
import { ArchiveDamaged, objectName } from '../engine/files/archive/object.ts';
import {
  ARCHIVE_FOLDER,
  POSITION_BYTES_MAX,
  POSITION_FILE,
  type PositionFile,
  parsePosition,
} from '../engine/files/archive/position.ts';
import { archiveOf, isoOf, openPlace, type StorageArchive, uuidOf } from './archive-place.ts';

/** A service with nothing to ship writes an object each minute. */
const AGE_S_MAX = 300;

/**
 * `bundoc archive status`: compares what the service has shipped with what the archive has. It reads the
 * position beside a running service.
 *
 * @throws CommandError with exit code 1 when the archive is behind, away or another one.
 */
export async function archiveStatus(
  environment: Environment,
  from: string | undefined,
  options: JsonOption,
): Promise<void> {
  const dataDir = environment['BUNDOC_DATA_DIR'] || './data';
  await using objects = openPlace(environment, from);
  const fault = await faultOf(objects);
  // Also why nothing was ever shipped.
  const position = readPosition(dataDir, fault);
  const now = Date.now();
  const ageS = Math.round((now - position.timeMs) / 1_000);
  const problems: string[] = [];
  if (ageS > AGE_S_MAX)
    problems.push(`the last object is ${ageS} seconds old: the log of Bundoc says why it does not ship`);
  const storage = uuidOf(position.storage);
  const isHere = position.target === objects.name;
  if (!isHere)
    problems.push(
      `the service has shipped to ${position.target} last, and nothing to ${objects.name}: compare BUNDOC_ARCHIVE with that of the service, and see its log`,
    );
  if (fault !== undefined) problems.unshift(fault);
  const missing =
    isHere && fault === undefined
      ? await compare(archiveOf(objects, storage), position, problems)
      : undefined;
  const { round } = position;
  const facts = {
    archive: objects.name,
    storage,
    last_object: objectName(position),
    last_at: isoOf(position.timeMs),
    age_seconds: ageS,
    round_began_at: round === undefined ? null : isoOf(round.beganMs),
    round_age_seconds: round === undefined ? null : Math.round((now - round.beganMs) / 1_000),
    missing: missing ?? null,
    problems,
  };
  print(options, facts, () => {
    const { problems: _, ...shown } = facts;
    const lines = factLines(shown).map((line) => line.replace(/: null$/, ': unknown'));
    return lines.map((line) => line.replace('round_began_at: unknown', 'round_began_at: none has ended yet'));
  });
  if (!options.json) for (const problem of problems) console.error(`bundoc: ${problem}`);
  if (problems.length > 0) throw faultFound();
}

/** @returns the number of objects that the chain lacks; undefined when it cannot be read. */
async function compare(
  { reader }: StorageArchive,
  position: PositionFile,
  problems: string[],
): Promise<number | undefined> {
  try {
    const { hash } = await reader.object(position);
    if (hash.toString('hex') !== position.hash)
      problems.push(`the archive has another object as ${objectName(position)}`);
    const chain = (await reader.chains()).find((one) => idIn(one, position.n)?.epoch === position.epoch);
    const missing = missingIn(chain, position);
    if (missing.length > 0)
      problems.push(`the archive lacks objects, of which the first is number ${missing[0]}`);
    return missing.length;
  } catch (error) {
    if (!(error instanceof ArchiveDamaged || error instanceof ObjectStorageError)) throw error;
    problems.push(
      error instanceof ArchiveDamaged ? `the archive is damaged: ${error.message}` : error.message,
    );
    return undefined;
  }
}

function missingIn(chain: Chain | undefined, { n }: PositionFile): readonly number[] {
  return chain === undefined ? [] : chain.missing.filter((one) => one <= n);
}

/** Why the target does not answer; undefined if it does. */
async function faultOf(objects: ObjectStorage): Promise<string | undefined> {
  try {
    for await (const _ of objects.list('')) break;
    return undefined;
  } catch (error) {
    if (error instanceof ObjectStorageError) return error.message;
    throw error;
  }
}

/**
 * @param fault of the target.
 * @throws CommandError with exit code 1 when nothing was shipped.
 */
function readPosition(dataDir: string, fault: string | undefined): PositionFile {
  const below = join(ARCHIVE_FOLDER, POSITION_FILE);
  const path = join(dataDir, below);
  let content: Buffer | undefined;
  try {
    using folder = DataFolder.open(dataDir);
    content = readSmallSync(folder, below, POSITION_BYTES_MAX);
  } catch (cause) {
    const code = codeOf(cause);
    throw new CommandError(
      code === 'ENOENT'
        ? `there is no data folder at ${dataDir}: set BUNDOC_DATA_DIR`
        : `cannot read ${path} (${code})`,
      { cause },
    );
  }
  if (content === undefined) {
    const why = fault ?? 'check BUNDOC_DATA_DIR, and whether the service has BUNDOC_ARCHIVE';
    const line = `there is no ${path}: this data folder was never shipped; ${why}`;
    throw new CommandError(line, { exitCode: 1 });
  }
  const position = parsePosition(content.toString());
  if (position !== undefined) return position;
  const line = `${path} is damaged: the next start of Bundoc begins another chain`;
  throw new CommandError(line, { exitCode: 1 });
}

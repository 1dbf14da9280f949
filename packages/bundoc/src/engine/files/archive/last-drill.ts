import { join } from 'node:path';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';
import type { Disk } from '../disk/disk.ts';
import { ARCHIVE_FOLDER } from './position.ts';

const DRILL_FILE = 'drill.json';
const BYTES_MAX = 4_096;
const drillSchema = z.strictObject({ format: z.literal(1), endedMs: z.int().nonnegative() });

/** Notes in the data folder that a drill found everything, for a metric. It is durable at the end. */
export function noteDrill(dataDir: string, endedMs: number): Promise<void> {
  const file: z.infer<typeof drillSchema> = { format: 1, endedMs };
  return replacePrivateFile(join(dataDir, ARCHIVE_FOLDER, DRILL_FILE), `${JSON.stringify(file)}\n`);
}

/** When the last good drill ended, milliseconds since 1970; undefined for none. */
export async function lastDrill(disk: Pick<Disk, 'read'>, dataDir: string): Promise<number | undefined> {
  const path = join(dataDir, ARCHIVE_FOLDER, DRILL_FILE);
  // Only a metric needs it: shipping goes on without.
  const content = await disk.read(path, BYTES_MAX).catch(() => undefined);
  return drillSchema.safeParse(parseJson(content?.toString() ?? '')).data?.endedMs;
}

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/** A file of the console with its compressed forms. */
export interface SiteFile {
  readonly contentType: string;
  readonly identity: Buffer;
  /** Absent for a file that compression does not make smaller. */
  readonly br: Buffer | undefined;
  readonly gzip: Buffer | undefined;
}

/** The files of the console by their path below `/console/`. */
export type Site = ReadonlyMap<string, SiteFile>;

export const MANIFEST_FILE = 'manifest.json';

/** A path whose names do not begin with a dot, so that it cannot leave the folder. */
const pathSchema = z.string().regex(/^[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$/);
const manifestSchema = z.strictObject({
  files: z.array(
    z.strictObject({
      path: pathSchema,
      contentType: z.string().min(1).max(100),
      encodings: z.array(z.enum(['br', 'gzip'])).max(2),
    }),
  ),
});

/**
 * Reads the built console (`packages/console/build.mjs`) into memory, once. So no request reads a file, and
 * no path of a request names one.
 *
 * @returns undefined when nothing was built.
 * @throws Error for a manifest that names missing files.
 */
export function readSite(directory: string): Site | undefined {
  const manifest = join(directory, MANIFEST_FILE);
  if (!existsSync(manifest)) return undefined;
  const { files } = manifestSchema.parse(JSON.parse(readFileSync(manifest, 'utf8')));
  return new Map(
    files.map(({ path, contentType, encodings }) => {
      const file = join(directory, path);
      const identity = readFileSync(file);
      const br = encodings.includes('br') ? readFileSync(`${file}.br`) : undefined;
      const gzip = encodings.includes('gzip') ? readFileSync(`${file}.gz`) : undefined;
      return [path, { contentType, identity, br, gzip }];
    }),
  );
}

import { readFileSync } from 'node:fs';
import { z } from 'zod';

const packageSchema = z.object({ version: z.string() });

/** The version in a `package.json`. @param url of that file. */
export function packageVersion(url: URL): string {
  return packageSchema.parse(JSON.parse(readFileSync(url, 'utf8'))).version;
}

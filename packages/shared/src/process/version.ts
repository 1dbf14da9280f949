import { readFileSync } from 'node:fs';

/** The version of this build. All packages of a release have the same. */
export const VERSION: string = versionOf(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
);

function versionOf(manifest: string): string {
  return (JSON.parse(manifest) as { version: string }).version;
}

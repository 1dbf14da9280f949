import { statSync } from 'node:fs';

/**
 * The mode of a file that others than its owner may use, in octal; undefined when nobody else may, when there
 * is no such file, and on Windows, which has no modes.
 */
export function modeOpenToOthers(path: string): string | undefined {
  if (process.platform === 'win32') return undefined;
  const found = statSync(path, { throwIfNoEntry: false });
  return found?.isFile() === true && (found.mode & 0o077) !== 0
    ? (found.mode & 0o777).toString(8)
    : undefined;
}

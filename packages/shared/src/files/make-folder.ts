import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

// Bundoc's file writer thread also uses this file. It must import no library.

/** A folder does not exist and cannot be made. */
export class FolderNotMade extends Error {
  override readonly name = 'FolderNotMade';
}

/**
 * Makes a folder and those above it, for the service's user only, unless it exists. Node's own `recursive`
 * never returns in a file system such as `/proc`, which refuses a folder as if the one above did not exist.
 *
 * @param variable that names the folder.
 * @throws FolderNotMade that names the variable, the path and the system's code.
 */
export function makeFolder(path: string, variable?: string): void {
  try {
    make(resolve(path));
  } catch (cause) {
    const what =
      variable === undefined ? 'cannot make the folder' : `${variable}: cannot make the data folder`;
    throw new FolderNotMade(`${what} ${path} (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}

function make(path: string): void {
  const fault = tryToMake(path);
  if (fault === undefined) return;
  if (fault.code !== 'ENOENT' || dirname(path) === path) throw fault;
  make(dirname(path));
  const again = tryToMake(path);
  if (again !== undefined) throw again;
}

/** @returns why there is still no folder. */
function tryToMake(path: string): NodeJS.ErrnoException | undefined {
  try {
    mkdirSync(path, { mode: 0o700 });
    return undefined;
  } catch (error) {
    const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
    return isFolder ? undefined : (error as NodeJS.ErrnoException);
  }
}

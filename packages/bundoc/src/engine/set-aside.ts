import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { type Disk, makeDirectoryDurably } from './files/disk/disk.ts';

/** Below the data folder: marks that nobody confirmed, for an operator to look at. */
export const SET_ASIDE_FOLDER = 'set-aside';

/** A mark that says of a project what is not so. Nothing of it is obeyed. */
export interface MarkSetAside {
  readonly project: string;
  /** Where it is now: a file below the data folder, or nowhere but in the log. */
  readonly file?: string;
  /** What it says, cut to a length that fits a log line. */
  readonly text?: string;
}

/** Told of each mark that is set aside. */
export type OnSetAside = (mark: MarkSetAside) => void;

/** The longest part of a mark that is logged. */
const LOGGED_CHARS_MAX = 500;

export function loggable(text: string): string {
  return text.slice(0, LOGGED_CHARS_MAX);
}

/**
 * Takes a mark out of the folder of a project, durably, without reading it.
 *
 * @param folder where it goes; it is made below an existing one, on the same file system.
 * @param name of the mark in `directory`.
 */
export async function setFileAside(
  disk: Disk,
  folder: string,
  directory: string,
  name: string,
  project: string,
): Promise<MarkSetAside> {
  await makeDirectoryDurably(disk, folder);
  const file = `${project}-${randomBytes(6).toString('hex')}-${name}`;
  await disk.rename(join(directory, name), join(folder, file));
  for (const path of [folder, directory]) await disk.syncDirectory(path);
  return { project, file };
}

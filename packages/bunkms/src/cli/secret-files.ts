import { modeOpenToOthers } from '@bundoc/shared/files/open-to-others';
import type { OutsideEntry } from '../outside/entries.ts';

/** Members of an entry that name a file with a secret. */
const SECRET_FILES: ReadonlySet<string> = new Set(['token_file', 'pin_file', 'credentials_file']);

/** A file with a secret that others than its owner may use. */
export interface OpenFile {
  readonly member: string;
  readonly path: string;
  /** In octal. */
  readonly mode: string;
}

/** The files of an entry that hold a secret and are open to others than their owner. */
export function openFilesOf(entry: OutsideEntry): OpenFile[] {
  return Object.entries(entry).flatMap(([member, path]) => {
    if (typeof path !== 'string' || !SECRET_FILES.has(member)) return [];
    const mode = modeOpenToOthers(path);
    return mode === undefined ? [] : [{ member, path, mode }];
  });
}

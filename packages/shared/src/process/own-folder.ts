import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { printable } from '../logs/printable.ts';
import { ConfigError } from './config.ts';

/** A file that each service makes in its data folder before all others. */
export const FIRST_FILES = { Bundoc: 'lock.sqlite', BunKMS: 'bunkms.sqlite' } as const;

/**
 * Refuses the data folder of the other service. In one folder, a copy or the rights of one service would
 * include the files of the other: sealed documents beside the keys that open them.
 *
 * @param variable that names the folder.
 * @throws ConfigError
 */
export function refuseFolderOf(other: keyof typeof FIRST_FILES, folder: string, variable: string): void {
  if (!existsSync(join(folder, FIRST_FILES[other]))) return;
  const place = printable(resolve(folder));
  throw new ConfigError([`${variable}: ${place} is the data folder of ${other}: name another one`]);
}

import { resolve } from 'node:path';
import { ConfigError } from '../process/config.ts';
import type { Clock } from '../runtime/clock.ts';
import { FolderStorage } from './folder-storage.ts';
import type { ObjectStorage } from './port.ts';

export interface OpenOptions {
  /** The variable that has the setting, for messages. */
  readonly variable: string;
  readonly clock: Clock;
}

const SCHEME = /^[a-z][a-z\d+.-]*:/i;

/**
 * Opens the target that a setting names: the path of a folder. Nothing is read or written before the first
 * operation, so a target that is away prevents no start.
 *
 * @throws ConfigError that names the variable and quotes no value.
 */
export function openObjectStorage(setting: string, { variable, clock }: OpenOptions): ObjectStorage {
  if (setting === '' || setting.includes('\0') || SCHEME.test(setting))
    throw new ConfigError([`${variable}: must be the path of a folder`]);
  return new FolderStorage({ path: resolve(setting), clock });
}

import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';

export const ARCHIVE_VARIABLE = 'BUNKMS_ARCHIVE';

/**
 * Opens the target of an archive. Nothing is asked before the first operation.
 *
 * @param options the variable that has the setting, for messages, and the data folder of the service.
 * @throws ConfigError.
 */
export function openArchive(
  setting: string,
  environment: Environment,
  { variable = ARCHIVE_VARIABLE, dataDir }: { readonly variable?: string; readonly dataDir?: string } = {},
): ObjectStorage {
  const place = { variable, environment, clock: systemClock };
  return openObjectStorage(setting, dataDir === undefined ? place : { ...place, dataDir });
}

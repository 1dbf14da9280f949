import { AppError } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';

const RECOVER =
  'an administrator can take it from the backup: "bunkms recover --from <folder>", with the folder of "bundoc backup --all"';

/**
 * Why the key of a backup is unavailable, and what to do; undefined for any other error.
 *
 * @param storage the storage that the project is restored into, if any.
 */
export function explainMissingKey(error: unknown, project: string, storage?: string): string | undefined {
  if (!(error instanceof AppError)) return undefined;
  switch (error.code) {
    case 'project_destroyed':
      return 'its key was permanently destroyed: the backup can no longer be read';
    case 'key_not_found':
    case 'key_missing':
      return `BunKMS does not know its key, without which the backup cannot be read; ${RECOVER}`;
    case 'key_damaged':
      return `its key in BunKMS is damaged or lacks a version; ${RECOVER}`;
    case 'project_elsewhere':
      return `storage ${error.storage} holds its key: if the project is to be restored here, an administrator first lets this storage take the key over (bunkms key take-over ${dekNameOf(project)} --storage ${storage})`;
    case 'key_unheld':
      return `no storage holds its key: an administrator first lets this storage claim it (bunkms key claim ${dekNameOf(project)} --storage ${storage})`;
    case 'project_disabled':
      return 'its key is disabled: if BunKMS was restored, an administrator decides on it (bunkms key review)';
    case 'key_mismatch':
      return 'BunKMS has another key under its name than the backup was made with';
    default:
      return undefined;
  }
}

import { CommandError } from '@bundoc/shared/cli/errors';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import { ConnectionRefused } from '@bundoc/shared/postgres/refusal';
import { ConfigError } from '@bundoc/shared/process/config';
import { DamagedFile, DamagedShare, EvidenceTooOld, MissingKek, UnfitShares } from '../recovery/errors.ts';

/** The command was not understood. */
export class UsageError extends CommandError {
  override readonly name = 'UsageError';
}

/** Exit codes of `bunkms`, for scripts; docs/keys.md lists them. Zero is success. */
export const EXIT = {
  /** The command failed, or found a fault. */
  failure: 1,
  /** The command line or the configuration was not understood. */
  usage: 2,
  /** The key, token or KEK does not exist. */
  notFound: 3,
  /** The key, or its version, was destroyed. */
  destroyed: 4,
  /**
   * The state of the key or KEK does not allow this, or the name is taken, or the store or file exists
   * already.
   */
  conflict: 5,
  /** The store does not answer, or the key is damaged. */
  unavailable: 6,
  /** A backup needs a KEK that the ring lacks. */
  kekLacking: 7,
  /** A backup, a copy of the audit chain or a KEK share is damaged, truncated, or of another origin. */
  damagedFile: 8,
  /** A copy of the audit chain ends before the backup, or before the record of a receipt. */
  evidenceTooOld: 9,
} as const;

/** The command was understood but failed, or found a fault. */
export class CliFailure extends CommandError {
  override readonly name: string = 'CliFailure';

  constructor(message: string, exitCode: number = EXIT.failure) {
    super(message, { exitCode });
  }
}

/** The installation is sealed: the KEK does not fit the store. */
export class KekUnfit extends CliFailure {
  override readonly name = 'KekUnfit';

  constructor(reason: string) {
    super(`sealed: ${reason}`);
  }
}

/** What to do when the KEK does not fit the store. */
export const KEK_MUST_FIT =
  'make sure that BUNKMS_DATA_DIR or BUNKMS_STORAGE and the KEK (BUNKMS_KEK_FILE) belong to the same installation';

/** The exit code for an error of the service. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof ConfigError || error instanceof UnfitShares) return EXIT.usage;
  if (error instanceof MissingKek) return EXIT.kekLacking;
  if (error instanceof DamagedFile) return EXIT.damagedFile;
  if (error instanceof EvidenceTooOld) return EXIT.evidenceTooOld;
  if (error instanceof ConnectionRefused) return EXIT.unavailable;
  if (!(error instanceof AppError)) return EXIT.failure;
  const { status } = PROBLEMS[error.code];
  if (status === 400 || status === 422) return EXIT.usage;
  if (status === 404) return EXIT.notFound;
  if (status === 410) return EXIT.destroyed;
  if (status === 403 || status === 409 || status === 412) return EXIT.conflict;
  return status >= 503 ? EXIT.unavailable : EXIT.failure;
}

/** When a take-over may ignore live leases. */
export const FORCE_WHEN =
  'wait until then, or add --force if the machine that used the key is gone or stopped for certain: otherwise two storages use one key at once';

/** What to do about an error, if its message does not say it. */
export function remedyOf(error: unknown): string | undefined {
  if (error instanceof KekUnfit) return KEK_MUST_FIT;
  if (error instanceof MissingKek)
    return 'put that KEK into the ring, or use a backup that was made under a KEK of the ring';
  if (error instanceof DamagedShare) return 'correct it by its paper, or use another share';
  if (error instanceof DamagedFile) return 'use another copy of this file, or an earlier backup';
  if (error instanceof EvidenceTooOld)
    return 'give a later copy; without a copy, keys come back disabled and tokens revoked';
  if (hasCode(error, 'key_not_found')) return '"bunkms key list" has all keys';
  if (hasCode(error, 'token_not_found')) return '"bunkms token list" has the ids of all tokens';
  if (hasCode(error, 'storage_not_found')) return '"bunkms storage list" has all storages';
  if (hasCode(error, 'kek_unusable'))
    return 'add the KEK as a line to the file of BUNKMS_KEK_FILE: it is staged within seconds';
  if (hasCode(error, 'kek_unfetched'))
    return 'add --fetch to have Bundoc fetch the new wrappings of the keys above, or --accept-unfetched when no holder will open them with this KEK again';
  return hasCode(error, 'lease_live') ? FORCE_WHEN : undefined;
}

import { BundocError } from '@bundoc/client/error';
import { AppError } from '@bundoc/shared/contract/app-error';

/**
 * The remedy for an error of the service or of BunKMS: that of the error or its nearest cause that has one.
 */
export function remedyOf(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const remedy =
      cause instanceof BundocError
        ? REMEDIES[cause.code]
        : cause instanceof AppError
          ? KMS_REMEDIES[cause.code]
          : undefined;
    if (remedy !== undefined) return remedy;
  }
  return undefined;
}

const REMEDIES: Readonly<Record<string, string>> = {
  unauthenticated: '"bundoc token" says what the token is and until when; "bundoc login" keeps a new one',
  forbidden: '"bundoc token" says what the token may do',
  network_error:
    'the address is from --url, BUNDOC_URL, a profile, or BUNDOC_HOST and BUNDOC_PORT; "bundoc doctor" looks for the cause',
  deadline_exceeded: '"bundoc doctor" looks for the cause',
  unexpected_answer: 'is this the URL of Bundoc? "bundoc doctor" looks for the cause',
};

/** For commands that use BunKMS themselves. */
const KMS_REMEDIES: Readonly<Record<string, string>> = {
  kms_unavailable:
    '"bundoc doctor" looks for the cause: whether BunKMS runs at BUNDOC_KMS_URL, and accepts the service token',
};

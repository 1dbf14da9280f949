import { BundocError } from '@bundoc/client/error';
import { BY_DEFAULT } from '@bundoc/shared/cli/bundoc-access';
import { AppError } from '@bundoc/shared/contract/app-error';
import { NoAnswer } from './service-client.ts';

/**
 * The remedy for an error of the service or of BunKMS: that of the error or its nearest cause that has one.
 */
export function remedyOf(error: unknown): string | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof BundocError && cause.cause instanceof NoAnswer) {
      const { source } = cause.cause;
      const place = `the address is ${source === BY_DEFAULT ? '' : 'from '}${source}`;
      return isWithoutTls(cause.cause)
        ? `the service there does not speak TLS: use http:// if that is right; ${place}`
        : `${place}; ${LOOK}`;
    }
    const remedy =
      cause instanceof BundocError
        ? REMEDIES[cause.code]
        : cause instanceof AppError
          ? kmsRemedyOf(cause)
          : undefined;
    if (remedy !== undefined) return remedy;
  }
  return undefined;
}

/** Whether a service answers plain HTTP at an https URL. */
function isWithoutTls(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if ('code' in cause && cause.code === 'ERR_SSL_WRONG_VERSION_NUMBER') return true;
  return false;
}

const LOOK = '"bundoc doctor" looks for the cause';
const REMEDIES: Readonly<Record<string, string>> = {
  unauthenticated:
    '"bundoc token" says what the token is and until when; "bundoc login" keeps a new one, unless BUNDOC_TOKEN has this one',
  forbidden: '"bundoc token" says what the token may do',
  network_error: LOOK,
  deadline_exceeded: LOOK,
  // The client's error names the URL.
  not_found: LOOK,
  unexpected_answer: `is this the URL of Bundoc? ${LOOK}`,
};

/** For commands that use BunKMS themselves. */
function kmsRemedyOf({ code, outsideKey }: AppError): string | undefined {
  return outsideKey === undefined
    ? KMS_REMEDIES[code]
    : 'where BunKMS runs, "bunkms outside check" says why; then run this again';
}

const KMS_REMEDIES: Readonly<Record<string, string>> = {
  kms_unavailable:
    '"bundoc doctor" looks for the cause: whether BunKMS runs at BUNDOC_KMS_URL, and accepts the service token',
};

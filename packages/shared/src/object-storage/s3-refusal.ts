import type { Clock } from '../runtime/clock.ts';
import { ObjectStorageError, type ObjectStorageFault } from './port.ts';
import { textOf, type XmlElement } from './xml.ts';

export type S3Headers = Readonly<Record<string, string | string[] | undefined>>;

/** What codes of S3 mean whatever the status. Source: "Error responses" of the Amazon S3 API Reference. */
const KINDS: ReadonlyMap<string | undefined, ObjectStorageFault> = new Map([
  ['RequestTimeTooSkewed', 'clock'],
  ['NoSuchBucket', 'missing'],
  ...['ExpiredToken', 'InvalidToken', 'TokenRefreshRequired'].map((code) => [code, 'denied'] as const),
  ...['SlowDown', 'ServiceUnavailable', 'InternalError', 'RequestTimeout', 'OperationAborted'].map(
    (code) => [code, 'unavailable'] as const,
  ),
  ...['ConditionalRequestConflict', 'BadDigest', 'XAmzContentSHA256Mismatch', 'IncompleteBody'].map(
    (code) => [code, 'unavailable'] as const,
  ),
]);
const CODE = /^[\w.]{1,64}$/;
const REGION = /^[a-z\d-]{1,32}$/;

/** The code of an error document. @returns undefined for any other document. */
export function codeOfError(xml: XmlElement | undefined): string | undefined {
  const code = xml?.name === 'Error' ? textOf(xml, 'Code') : undefined;
  return code !== undefined && CODE.test(code) ? code : undefined;
}

/**
 * A refusal of S3 as an error. Of what the service says, it has only code, status and region: messages repeat
 * keys and signed texts.
 *
 * @param where the target and the operation, for the message.
 */
export function refusalOf(
  where: string,
  status: number,
  headers: S3Headers,
  xml: XmlElement | undefined,
  clock: Clock,
): ObjectStorageError {
  const code = codeOfError(xml);
  const kind = KINDS.get(code) ?? kindOfStatus(status, xml?.name === 'Error');
  const what = code === undefined ? `status ${status}` : `${code} (${status})`;
  const region = [headers['x-amz-bucket-region'], textOf(xml, 'Region')].find(
    (text) => typeof text === 'string' && REGION.test(text),
  );
  return new ObjectStorageError(kind, `${where}: ${what}${remedyOf()}`, code ?? String(status));

  function remedyOf(): string {
    if (kind === 'clock') {
      const serverMs = Date.parse(String(headers['date']));
      const seconds = Math.round((clock.now() - serverMs) / 1_000);
      const ahead = Number.isNaN(seconds)
        ? ''
        : `, which is ${Math.abs(seconds)} s ${seconds < 0 ? 'behind' : 'ahead'}`;
      return `: set the clock of this machine${ahead}`;
    }
    if (kind === 'missing') return ': make the bucket, or correct its name';
    if (kind === 'denied') return ': see that the credential works, and what it may do';
    if (kind === 'unavailable') return '';
    if (region !== undefined && (status < 400 || status === 400))
      return `: the bucket is in the region ${String(region)}: correct region, or endpoint`;
    return status < 400 ? ': redirects are not followed: correct endpoint and region' : '';
  }
}

function kindOfStatus(status: number, isError: boolean): ObjectStorageFault {
  if (status === 401 || status === 403) return 'denied';
  // An error that begins with success came up while the service was at work.
  if (status < 300) return isError ? 'unavailable' : 'wrong';
  const isPassing = status === 408 || status === 429 || (status >= 500 && status !== 501);
  return isPassing ? 'unavailable' : 'wrong';
}

/** What errors of a connection mean for an operator. */
const REMEDIES: Readonly<Record<string, string>> = {
  ENOTFOUND: 'correct endpoint, or region',
  UND_ERR_HEADERS_TIMEOUT: 'the target takes connections and does not answer them: correct endpoint',
  ERR_SSL_WRONG_VERSION_NUMBER: 'nothing speaks TLS there: correct endpoint',
  ERR_TLS_CERT_ALTNAME_INVALID: 'put a name of its certificate into endpoint',
  CERT_HAS_EXPIRED: 'renew the certificate of the target',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'name the authority of its certificate with ca',
  SELF_SIGNED_CERT_IN_CHAIN: 'name the authority of its certificate with ca',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'name the authority of its certificate with ca',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'name the authority of its certificate with ca',
};

/**
 * A failed connection as an error. It has the code alone: the error of a parser has bytes of the answer,
 * which may repeat what was sent.
 */
export function noAnswerOf(where: string, error: unknown): ObjectStorageError {
  const { name, code } = error as { name: string; code?: unknown };
  const known = typeof code === 'string' ? code : name;
  const remedy = Object.hasOwn(REMEDIES, known) ? `: ${REMEDIES[known]}` : '';
  return new ObjectStorageError('unavailable', `${where}: no answer (${known})${remedy}`, known);
}

import { stampOf } from '@bundoc/shared/files/file-stamp';
import { ConfigError, unreadable } from '@bundoc/shared/process/config';
import { readTlsMaterial } from '@bundoc/shared/tls/files';
import { TLS_VERSION_MIN } from '@bundoc/shared/tls/watched-tls';
import { Agent } from 'undici';
import { OutsideKeyError } from './port.ts';

const ANSWER_BYTES_MAX = 16_384;
/** An idle connection may have been closed by the other side. */
const IDLE_MS = 4_000;
const CONNECT_MS = 1_000;

/**
 * The connections to a service that holds a key. They verify certificates whatever the environment says, and
 * refuse an answer of more than 16 KiB.
 */
export class HttpAgent implements AsyncDisposable {
  readonly #caFile: string | undefined;
  #current: { readonly stamp: string; readonly agent: Agent } | undefined;

  /**
   * @param caFile PEM of the authorities of the service's certificate; the system's when undefined. Read
   *   again when it changes.
   */
  constructor(caFile: string | undefined) {
    this.#caFile = caFile;
  }

  /** @throws OutsideKeyError `unavailable` for an unreadable file of authorities. */
  current(): Agent {
    const caFile = this.#caFile;
    const stamp = caFile === undefined ? '' : stampOf(caFile);
    if (this.#current?.stamp === stamp) return this.#current.agent;
    const ca =
      caFile === undefined
        ? {}
        : readOwn('ca_file', caFile, () => readTlsMaterial({ ca: { variable: 'ca_file', path: caFile } }));
    const agent = new Agent({
      connect: { timeout: CONNECT_MS, minVersion: TLS_VERSION_MIN, ...ca, rejectUnauthorized: true },
      keepAliveTimeout: IDLE_MS,
      maxResponseSize: ANSWER_BYTES_MAX,
    });
    void this.#current?.agent.close();
    this.#current = { stamp, agent };
    return agent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#current?.agent.destroy();
  }
}

/**
 * Reads a file of ours, which a member of the entry names. Its lack says nothing about the key.
 *
 * @throws OutsideKeyError `unavailable`.
 */
export function readOwn<T>(member: string, path: string, look: () => T): T {
  try {
    return look();
  } catch (error) {
    const faults =
      error instanceof ConfigError ? error.faults.join('; ') : `${member}: ${unreadable(path, error)}`;
    const remedy = `correct ${member} in the entry, or put the file there, readable by the user of BunKMS`;
    throw new OutsideKeyError('unavailable', faults, { remedy });
  }
}

/** What errors of a connection mean for an operator. */
const REMEDIES: Readonly<Record<string, string>> = {
  ENOTFOUND: 'correct the name of the host in the entry',
  ERR_SSL_WRONG_VERSION_NUMBER: 'nothing speaks TLS there: correct scheme and port in the entry',
  ERR_TLS_CERT_ALTNAME_INVALID: 'put a name or address of its certificate into the entry',
  CERT_HAS_EXPIRED: 'renew the certificate of the service',
};
const UNKNOWN_AUTHORITY: readonly string[] = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
];

/** A connection that failed, as `unavailable` with a remedy. */
export function noAnswerOf(origin: string, error: unknown): OutsideKeyError {
  const { code = '', reason, message } = error as { code?: string; reason?: string; message: string };
  const remedy = UNKNOWN_AUTHORITY.includes(code)
    ? 'put the authority of its certificate into ca_file of the entry'
    : (REMEDIES[code] ??
      'see that the service runs at the address of the entry and can be reached from here');
  // The text of OpenSSL has places in its source, and that of several addresses is empty.
  const isPlain = reason === undefined && message !== '';
  const cause = isPlain ? error : new Error(reason ?? code);
  return new OutsideKeyError('unavailable', `no answer of ${origin}`, { cause, remedy });
}

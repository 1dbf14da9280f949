import { stampOf } from '@bundoc/shared/files/file-stamp';
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
        : readOwn('ca_file', () => readTlsMaterial({ ca: { variable: 'ca_file', path: caFile } }));
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

/** Reads a file of ours. Its lack says nothing about the key. */
export function readOwn<T>(member: string, look: () => T): T {
  try {
    return look();
  } catch (error) {
    throw new OutsideKeyError('unavailable', `${member} cannot be read`, { cause: error });
  }
}

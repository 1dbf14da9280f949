import type { SecureContextOptions } from 'node:tls';
import type { Logger } from '../logs/logger.ts';
import { type Clock, every } from '../runtime/clock.ts';
import { readTlsMaterial, stampOfTlsFiles, type TlsFiles, type TlsMaterial } from './files.ts';

export interface WatchedTlsOptions {
  readonly files: TlsFiles;
  /** Its purpose, for the log: `api`, `internal`, `client`. */
  readonly use: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** {@link CHECK_EVERY_MS} unless a test sets it. */
  readonly checkEveryMs?: number | undefined;
}

/** How often the files are checked, milliseconds. */
const CHECK_EVERY_MS = 5_000;
const DAY_MS = 86_400_000;
/** How long before its expiry the log warns about a certificate. */
const WARN_BEFORE_MS = 14 * DAY_MS;

/** The minimum TLS version: 1.3, which has no weak options (RFC 8446). Both endpoints are ours. */
export const TLS_VERSION_MIN = 'TLSv1.3';

/**
 * The certificate, key and authorities of one TLS endpoint. They are reloaded when their files change, so a
 * renewal needs no restart. If the new files are invalid or do not belong together, the last good ones stay
 * in use. The log says so once it is clear that the files are not just being written.
 */
export class WatchedTls implements Disposable {
  readonly #options: WatchedTlsOptions;
  readonly #checks: Disposable;
  #material: TlsMaterial;
  #stamp: string;
  /** Stamp of invalid files, and whether they were logged. */
  #broken: { readonly stamp: string; isLogged: boolean } | undefined;
  #warnedAtMs: number | undefined;
  #onChange: (context: SecureContextOptions) => void = () => undefined;

  /** @throws ConfigError when the files are invalid. */
  constructor(options: WatchedTlsOptions) {
    this.#options = options;
    // Before reading, so that a later change is detected.
    this.#stamp = stampOfTlsFiles(options.files);
    this.#material = readTlsMaterial(options.files);
    this.#warnOfEnd();
    this.#checks = every(options.checkEveryMs ?? CHECK_EVERY_MS, () => this.check());
  }

  /** The present options for a secure context. */
  get context(): SecureContextOptions {
    const { notAfterMs: _, ...pems } = this.#material;
    return { ...pems, minVersion: TLS_VERSION_MIN };
  }

  /** When the certificate expires, milliseconds since 1970; undefined without one. */
  get notAfterMs(): number | undefined {
    return this.#material.notAfterMs;
  }

  /** Calls `use` with the context now and after each change. */
  follow(use: (context: SecureContextOptions) => void): void {
    this.#onChange = use;
    use(this.context);
  }

  /** Checks the files. Runs periodically; tests call it directly. */
  check(): void {
    const { files, logger, use } = this.#options;
    const stamp = stampOfTlsFiles(files);
    if (stamp !== this.#stamp) {
      try {
        this.#material = readTlsMaterial(files);
        this.#onChange(this.context);
        this.#stamp = stamp;
        this.#broken = undefined;
        this.#warnedAtMs = undefined;
        logger.info({ use, notAfter: this.#notAfter() }, 'the certificate was reloaded');
      } catch (error) {
        this.#keepLastGood(stamp, error);
      }
    } else this.#broken = undefined;
    this.#warnOfEnd();
  }

  [Symbol.dispose](): void {
    this.#checks[Symbol.dispose]();
  }

  /**
   * Certificate and key are written one after the other, so the first check may fall between. Only the second
   * one logs the error.
   */
  #keepLastGood(stamp: string, error: unknown): void {
    const { logger, use } = this.#options;
    if (this.#broken?.stamp !== stamp) {
      this.#broken = { stamp, isLogged: false };
      return;
    }
    if (this.#broken.isLogged) return;
    this.#broken.isLogged = true;
    logger.error({ use, err: error }, 'new certificate rejected; keeping the previous one');
  }

  /** Logs at most once a day, and after each change. */
  #warnOfEnd(): void {
    const { clock, logger, use } = this.#options;
    const { notAfterMs } = this.#material;
    const nowMs = clock.now();
    if (notAfterMs === undefined || notAfterMs - nowMs > WARN_BEFORE_MS) return;
    if (this.#warnedAtMs !== undefined && nowMs - this.#warnedAtMs < DAY_MS) return;
    this.#warnedAtMs = nowMs;
    if (notAfterMs <= nowMs) logger.error({ use, notAfter: this.#notAfter() }, 'the certificate has expired');
    else logger.warn({ use, notAfter: this.#notAfter() }, 'the certificate expires soon');
  }

  #notAfter(): string | undefined {
    const { notAfterMs } = this.#material;
    return notAfterMs === undefined ? undefined : new Date(notAfterMs).toISOString();
  }
}

import type { SecureContextOptions } from 'node:tls';
import { type Clock, every } from '../runtime/clock.ts';
import type { Logger } from '../runtime/logger.ts';
import { readTlsMaterial, stampOfTlsFiles, type TlsFiles, type TlsMaterial } from './files.ts';

export interface WatchedTlsOptions {
  readonly files: TlsFiles;
  /** What it is for, in the log: `api`, `internal`, `client`. */
  readonly use: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** {@link CHECK_EVERY_MS} unless a test is in a hurry. */
  readonly checkEveryMs?: number | undefined;
}

/** How often the files are looked at, milliseconds. */
const CHECK_EVERY_MS = 5_000;
const DAY_MS = 86_400_000;
/** From when on the log speaks of the end of a certificate. */
const WARN_BEFORE_MS = 14 * DAY_MS;

/** What both ends use of TLS: 1.3, which has no weak choice left to make (RFC 8446). Both ends are ours. */
export const TLS_VERSION_MIN = 'TLSv1.3';

/**
 * The certificate, key and authorities of one end of TLS, read again when their files change, so that they
 * are renewed without a restart. Files that are invalid, or do not belong together, change nothing: the last
 * good ones stay, and the log says so once it is clear that nobody is just writing them.
 *
 * One class, because what is read, what is served and what was logged must agree after each check.
 */
export class WatchedTls implements Disposable {
  readonly #options: WatchedTlsOptions;
  readonly #checks: Disposable;
  #material: TlsMaterial;
  #stamp: string;
  /** Stamp of files that were no use, and whether that is in the log. */
  #broken: { readonly stamp: string; isLogged: boolean } | undefined;
  #warnedAtMs: number | undefined;
  #onChange: (context: SecureContextOptions) => void = () => undefined;

  /** @throws ConfigError when the files are invalid. */
  constructor(options: WatchedTlsOptions) {
    this.#options = options;
    // Before reading: a change in between is then seen as one.
    this.#stamp = stampOfTlsFiles(options.files);
    this.#material = readTlsMaterial(options.files);
    this.#warnOfEnd();
    this.#checks = every(options.checkEveryMs ?? CHECK_EVERY_MS, () => this.check());
  }

  /** What to make a secure context of, now. */
  get context(): SecureContextOptions {
    const { notAfterMs: _, ...pems } = this.#material;
    return { ...pems, minVersion: TLS_VERSION_MIN };
  }

  /** When the certificate ends, milliseconds since 1970; undefined without one. */
  get notAfterMs(): number | undefined {
    return this.#material.notAfterMs;
  }

  /** Has `use` called with the context now and whenever it has changed. */
  follow(use: (context: SecureContextOptions) => void): void {
    this.#onChange = use;
    use(this.context);
  }

  /** Looks at the files. Runs by itself; a test may be in a hurry. */
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
   * Certificate and key are written one after the other: the first look may fall between, the second says
   * what is wrong.
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

  /** At most once a day, and after each change. */
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

import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { readSecretFile } from '@bundoc/shared/runtime/config';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { z } from 'zod';

export interface ServiceTokenOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Source of jitter, 0 to 1. */
  readonly random?: () => number;
}

const CHECK_EVERY_MS_MAX = 60_000;
/** The shortest pause between two renewals. */
const CHECK_EVERY_MS_MIN = 1_000;
const BACKOFF = { firstMs: 2 * CHECK_EVERY_MS_MIN, maxMs: CHECK_EVERY_MS_MAX };
const EXPIRED =
  'the service token has expired and cannot be renewed: put a new one into its file (bunkms token issue, or bunkms init --service-token)';

const lifeSchema = z.object({ iat: z.int(), exp: z.int() });

/**
 * Bundoc's own token for BunKMS. It lies in a file that is read again when it changes, and is renewed at half
 * its life: the file is then replaced in place, so that a restart finds the new one. Where the file cannot be
 * replaced, the new token is kept in memory and the log says so.
 */
export class ServiceToken {
  readonly #options: ServiceTokenOptions;
  #token: string;
  #fileStamp: string;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @throws ConfigError when the file cannot be read. */
  constructor(options: ServiceTokenOptions) {
    this.#options = options;
    this.#fileStamp = this.#stampOfFile();
    this.#token = readSecretFile('BUNDOC_KMS_TOKEN_FILE', options.path);
  }

  /** The token of the moment: the file's, or a newer one that could not be written there. */
  current(): string {
    const stamp = this.#stampOfFile();
    if (stamp !== this.#fileStamp && stamp !== '') {
      try {
        // An empty file is a fault too: it is what a shell leaves of `bunkms token issue > file` that failed.
        this.#token = readSecretFile('BUNDOC_KMS_TOKEN_FILE', this.#options.path);
        this.#fileStamp = stamp;
      } catch (error) {
        this.#options.logger.warn(
          { err: error },
          'the service token file cannot be read; keeping the last token',
        );
      }
    }
    return this.#token;
  }

  /** When the token of the moment ends, milliseconds since 1970; undefined when it does not say. */
  get expiresAtMs(): number | undefined {
    const life = lifeOf(this.#token);
    return life && life.exp * 1_000;
  }

  /**
   * Renews the token when half of its life is over. Never rejects: a failure is logged, and tried again
   * later.
   */
  async renewIfDue(renew: () => Promise<string>): Promise<void> {
    const life = lifeOf(this.current());
    if (life !== undefined && this.#options.clock.now() < halfLifeMs(life)) return;
    try {
      const token = await renew();
      this.#token = token;
      this.#failures = 0;
      await this.#writeFile(token);
      this.#options.logger.info('the service token was renewed');
    } catch (error) {
      this.#failures++;
      if (life !== undefined && this.#options.clock.now() >= life.exp * 1_000)
        this.#options.logger.error({ err: error }, EXPIRED);
      else this.#options.logger.warn({ err: error }, 'the service token could not be renewed; trying again');
    }
  }

  /** Renews from now on until {@link stop}. */
  keepRenewed(renew: () => Promise<string>): void {
    const life = lifeOf(this.#token);
    const untilDueMs = life === undefined ? 0 : halfLifeMs(life) - this.#options.clock.now();
    const pauseMs = this.#failures === 0 ? 0 : backoffMs(BACKOFF, this.#failures, this.#options.random);
    const waitMs = Math.min(CHECK_EVERY_MS_MAX, Math.max(CHECK_EVERY_MS_MIN, pauseMs, untilDueMs));
    this.#timer = setTimeout(() => {
      void this.renewIfDue(renew).then(() => {
        if (this.#timer !== undefined) this.keepRenewed(renew);
      });
    }, waitMs).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async #writeFile(token: string): Promise<void> {
    const { path, logger } = this.#options;
    const temporary = join(dirname(path), `.kms-token-${randomBytes(6).toString('hex')}`);
    try {
      await using file = await open(temporary, 'wx', 0o600);
      await file.writeFile(`${token}\n`);
      await file.sync();
      await rename(temporary, path);
      this.#fileStamp = this.#stampOfFile();
    } catch (error) {
      await rm(temporary, { force: true });
      logger.warn(
        { err: error },
        'the renewed service token cannot be written to its file; it is in memory only',
      );
    }
  }

  /** Tells whether the file has changed; empty while it is not there or cannot be looked at. */
  #stampOfFile(): string {
    try {
      const { ino, mtimeNs, size } = statSync(this.#options.path, { bigint: true });
      return `${ino}-${mtimeNs}-${size}`;
    } catch {
      return '';
    }
  }
}

type Life = z.infer<typeof lifeSchema>;

function halfLifeMs({ iat, exp }: Life): number {
  return ((iat + exp) / 2) * 1_000;
}

/** Times of a token, read without checking it: only BunKMS can, and does. */
function lifeOf(token: string): Life | undefined {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
    return lifeSchema.parse(payload);
  } catch {
    return undefined;
  }
}

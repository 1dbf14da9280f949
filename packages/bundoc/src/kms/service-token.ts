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
/** Minimum pause between two renewals. */
const CHECK_EVERY_MS_MIN = 1_000;
const BACKOFF = { firstMs: 2 * CHECK_EVERY_MS_MIN, maxMs: CHECK_EVERY_MS_MAX };
const EXPIRED =
  'the service token has expired and cannot be renewed: put a new one into its file (bunkms token issue, or bunkms init --service-token)';

const lifeSchema = z.object({ iat: z.int(), exp: z.int() });

/**
 * Bundoc's own token for BunKMS. It is in a file, which is read again when it changes. At half the token's
 * lifetime, the token is renewed and the file replaced, so that a restart finds the new one. If the file
 * cannot be replaced, the new token stays in memory and a warning is logged.
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

  /** The current token: that of the file, or a newer one that could not be written to it. */
  current(): string {
    const stamp = this.#stampOfFile();
    if (stamp !== this.#fileStamp && stamp !== '') {
      try {
        // An empty file is a fault, too: a failed `bunkms token issue > file` leaves one.
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

  /** The end of the current token, milliseconds since 1970; undefined when it states none. */
  get expiresAtMs(): number | undefined {
    const life = parseLife(this.#token);
    return life && life.exp * 1_000;
  }

  /** Renews the token after half of its lifetime. Never rejects: a failure is logged, and retried later. */
  async renewIfDue(renew: () => Promise<string>): Promise<void> {
    const life = parseLife(this.current());
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

  /** Keeps the token renewed until {@link stop}. */
  keepRenewed(renew: () => Promise<string>): void {
    const life = parseLife(this.#token);
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

  /** A stamp that changes with the file; empty when the file is missing or inaccessible. */
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

/** Reads the times of a token without verifying it, which only BunKMS can do. */
function parseLife(token: string): Life | undefined {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
    return lifeSchema.parse(payload);
  } catch {
    return undefined;
  }
}

import { randomBytes } from 'node:crypto';
import { renameSync, rmSync, statSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { audienceSchema, tokenTypeSchema } from '@bundoc/shared/contract/tokens';
import { modeOpenToOthers } from '@bundoc/shared/files/open-to-others';
import { parseJson } from '@bundoc/shared/json/parse-json';
import type { Logger } from '@bundoc/shared/logs/logger';
import { printable } from '@bundoc/shared/logs/printable';
import { ConfigError, readSecretFile } from '@bundoc/shared/process/config';
import { backoffMs } from '@bundoc/shared/runtime/backoff';
import type { Clock } from '@bundoc/shared/runtime/clock';
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
const IN_MEMORY = 'the renewed service token cannot be written to its file; it is in memory only';

const lifeSchema = z.object({ iat: z.int(), exp: z.int() });
const kindSchema = z.object({ typ: tokenTypeSchema, aud: audienceSchema });

/**
 * Bundoc's own token for BunKMS. It is in a file, which is read again when it changes. At half the token's
 * lifetime, the token is renewed and the file replaced, so that a restart finds the new one. If the file
 * cannot be replaced, the new token stays in memory and a warning is logged. A file that an operator replaces
 * during a renewal is kept and read: the renewed token is of a family that may be about to be revoked.
 */
export class ServiceToken {
  readonly #options: ServiceTokenOptions;
  #token: string;
  #fileStamp: string;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @throws ConfigError when the file cannot be read, or has another kind of token. */
  constructor(options: ServiceTokenOptions) {
    this.#options = options;
    this.#fileStamp = this.#stampOfFile();
    this.#token = readTokenFile(options.path);
    if (modeOpenToOthers(options.path) !== undefined)
      options.logger.warn(`${VARIABLE}: the file is open to its group or to others; make it mode 0600`);
  }

  /** The current token: that of the file, or a newer one that could not be written to it. */
  current(): string {
    const stamp = this.#stampOfFile();
    if (stamp !== this.#fileStamp && stamp !== '') {
      try {
        // An empty file is a fault, too: a failed `bunkms token issue > file` leaves one.
        this.#token = readTokenFile(this.#options.path);
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
    const before = this.#fileStamp;
    try {
      const token = await renew();
      this.#failures = 0;
      await this.#adopt(token, before);
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

  /** Takes a renewed token, and puts it into the file. @param before the stamp of the token's file. */
  async #adopt(token: string, before: string): Promise<void> {
    const { path, logger } = this.#options;
    const temporary = await this.#writeTemporary(token);
    // No `await` from here to the rename: the file must not change between the check and the rename.
    this.current();
    if (this.#fileStamp !== before) {
      if (temporary !== undefined) rmSync(temporary, { force: true });
      logger.info('the service token file was replaced during a renewal: the renewed token is discarded');
      return;
    }
    this.#token = token;
    if (temporary === undefined) return;
    const stamp = this.#stampOfFile();
    try {
      // Present and unreadable, such as an empty file that `bunkms token issue` is about to fill.
      if (stamp !== before && stamp !== '') throw new Error('the file is being replaced');
      renameSync(temporary, path);
      this.#fileStamp = this.#stampOfFile();
      logger.info('the service token was renewed');
    } catch (error) {
      rmSync(temporary, { force: true });
      logger.warn({ err: error }, IN_MEMORY);
    }
  }

  /** @returns the path of a durable file beside the token's; undefined, and logs why, when it fails. */
  async #writeTemporary(token: string): Promise<string | undefined> {
    const { path, logger } = this.#options;
    const temporary = join(dirname(path), `.kms-token-${randomBytes(6).toString('hex')}`);
    try {
      await using file = await open(temporary, 'wx', 0o600);
      await file.writeFile(`${token}\n`);
      await file.sync();
      return temporary;
    } catch (error) {
      await rm(temporary, { force: true });
      logger.warn({ err: error }, IN_MEMORY);
      return undefined;
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
  return lifeSchema.safeParse(payloadOf(token)).data;
}

function payloadOf(token: string): unknown {
  return parseJson(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
}

const VARIABLE = 'BUNDOC_KMS_TOKEN_FILE';
/** A JSON Web Token (RFC 7519): three parts in base64url. */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** @throws ConfigError for a file that cannot be read, or has no token or another kind of token. */
function readTokenFile(path: string): string {
  const make = (place: string) => `make it with: bunkms init --service-token ${place}`;
  const token = readSecretFile(VARIABLE, path, make);
  const place = printable(resolve(path));
  if (!JWT.test(token))
    throw new ConfigError([`${VARIABLE}: the file ${place} has no token in it; ${make(place)}`]);
  const { data } = kindSchema.safeParse(payloadOf(token));
  if (data === undefined || (data.typ === 'service' && data.aud === 'bunkms')) return token;
  const kind = `a ${data.typ} token for ${data.aud === 'bunkms' ? 'BunKMS' : 'Bundoc'}`;
  throw new ConfigError([
    `${VARIABLE}: the file ${place} has ${kind}, and a service token for BunKMS is needed; ${make(place)}`,
  ]);
}

import type { KmsEvent } from '@bundoc/shared/contract/events';
import { type Claims, TOKEN_TTL_S_MAX } from '@bundoc/shared/contract/tokens';
import { type Clock, earlierMs, type Instant, instant } from '@bundoc/shared/runtime/clock';

type Revocation = Extract<KmsEvent, { type: 'token.revoke' }>;

/** Maximum number of tokens; beyond it, the oldest revocation is dropped. */
const REMEMBERED_MAX = 100_000;
/** Extra time that a token is kept after its end, milliseconds: the clock may be set back. */
const MARGIN_MS = 3_600_000;

/**
 * The tokens that BunKMS has revoked, each until its end. Tokens for Bundoc are never renewed, so each is its
 * whole family.
 */
export class RevokedTokens {
  readonly #clock: Clock;
  readonly #started: Instant;
  readonly #untilMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#started = instant(clock);
  }

  get size(): number {
    return this.#untilMs.size;
  }

  has({ jti }: Pick<Claims, 'jti'>): boolean {
    return this.#untilMs.has(jti);
  }

  add({ jti, family, expires_at: expiresAt }: Omit<Revocation, 'type'>): void {
    const endMs =
      expiresAt === undefined ? this.#clock.now() + TOKEN_TTL_S_MAX.service * 1_000 : Date.parse(expiresAt);
    for (const id of new Set([jti, family])) this.#untilMs.set(id, endMs + MARGIN_MS);
    while (this.#untilMs.size > REMEMBERED_MAX) {
      const [oldest] = this.#untilMs.keys();
      if (oldest !== undefined) this.#untilMs.delete(oldest);
    }
  }

  /**
   * Drops expired ones. Call it periodically. BunKMS does not send them again, so a wall clock that is set
   * forward drops none early.
   */
  sweep(): void {
    const nowMs = earlierMs(this.#clock, this.#started);
    for (const [id, untilMs] of this.#untilMs) if (untilMs <= nowMs) this.#untilMs.delete(id);
  }
}

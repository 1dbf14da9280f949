import { shown } from './options.ts';

/** Returns a token, a new one when the last is about to expire: `token` of the client's options. */
export type TokenProvider = () => string | Promise<string>;

/**
 * A token is replaced this long before it expires, milliseconds; a token with a short life after nine tenths
 * of it.
 */
const EARLY_MS = 60_000;
const EARLY_PART = 0.1;
/** How long a provider may take, milliseconds. One that never answers must not block all later requests. */
const PROVIDE_MS_MAX = 30_000;

interface Held {
  readonly token: string;
  /** When to request a new one, milliseconds since 1970; never for a token without `exp`. */
  readonly refreshAtMs: number;
  readonly endsAtMs: number;
}

/**
 * The token that requests carry. A token from a provider is kept until shortly before it expires, or until
 * the service refuses it. Concurrent requests that need a new one share one call of the provider.
 */
export class TokenSource {
  readonly #provide: TokenProvider | undefined;
  readonly #now: () => number;
  readonly #provideMsMax: number;
  #held: Held | undefined;
  #asked: Promise<Held> | undefined;

  constructor(
    token: string | TokenProvider,
    now: () => number = Date.now,
    provideMsMax: number = PROVIDE_MS_MAX,
  ) {
    if (typeof token !== 'function') requireToken('options.token', token);
    this.#provide = typeof token === 'string' ? undefined : token;
    this.#held = typeof token === 'string' ? { token, refreshAtMs: Infinity, endsAtMs: Infinity } : undefined;
    this.#now = now;
    this.#provideMsMax = provideMsMax;
  }

  /** @throws what the provider throws, unless the previous token is still valid. */
  async current(): Promise<string> {
    const held = this.#held;
    if (held !== undefined && this.#now() < held.refreshAtMs) return held.token;
    try {
      return (await this.#ask()).token;
    } catch (error) {
      if (held === undefined || held.endsAtMs <= this.#now()) throw error;
      return held.token;
    }
  }

  /**
   * The token to try after `refused`; undefined when there is no other.
   *
   * @throws what the provider throws.
   */
  async after(refused: string): Promise<string | undefined> {
    if (this.#provide === undefined) return undefined;
    // Another request may have replaced it already.
    const held = this.#held?.token === refused ? await this.#ask() : (this.#held ?? (await this.#ask()));
    return held.token === refused ? undefined : held.token;
  }

  /** Why the service may refuse the token that requests carry now, which the 401 never says. */
  fault(): string | undefined {
    const { exp } = timesOf(this.#held?.token ?? '');
    return exp === undefined || exp * 1_000 > this.#now()
      ? undefined
      : `the token expired at ${new Date(exp * 1_000).toISOString()}: give a new one`;
  }

  #ask(): Promise<Held> {
    const provide = this.#provide;
    if (provide === undefined) throw new Error('a token that is text has no function');
    this.#asked ??= (async () => {
      try {
        this.#held = this.#heldOf(await inTime(provide(), this.#provideMsMax));
        return this.#held;
      } finally {
        this.#asked = undefined;
      }
    })();
    return this.#asked;
  }

  /**
   * A new token that has expired by this clock is used until the service refuses it. The clock may be wrong,
   * and a new token for each request would not help.
   */
  #heldOf(token: string): Held {
    requireToken('the result of the token function', token);
    const { iat, exp } = timesOf(token);
    if (exp === undefined) return { token, refreshAtMs: Infinity, endsAtMs: Infinity };
    const nowMs = this.#now();
    const lifeMs = exp * 1_000 - (iat === undefined ? nowMs : iat * 1_000);
    const refreshAtMs = exp * 1_000 - Math.min(EARLY_MS, lifeMs * EARLY_PART);
    return { token, refreshAtMs: refreshAtMs <= nowMs ? Infinity : refreshAtMs, endsAtMs: exp * 1_000 };
  }
}

/** @throws TypeError without a token, such as that of an unset variable: each call would be refused. */
function requireToken(place: string, token: unknown): void {
  if (typeof token !== 'string' || token.trim() === '')
    throw new TypeError(`${place}: ${shown(token)} is not a token`);
  if (/\s/.test(token.trim()))
    throw new TypeError(`${place}: a token has no spaces; give it without "Bearer"`);
}

async function inTime(token: string | Promise<string>, msMax: number): Promise<string> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`the token function returned no token within ${msMax} ms`)),
      msMax,
    );
  });
  try {
    return await Promise.race([token, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** `iat` and `exp` of a JSON Web Token, if it has them. Nothing is verified. */
function timesOf(token: string): { readonly iat?: number; readonly exp?: number } {
  try {
    const part = String(token.split('.')[1]).replaceAll('-', '+').replaceAll('_', '/');
    const { iat, exp } = JSON.parse(atob(part)) as { iat?: unknown; exp?: unknown };
    return {
      ...(typeof iat === 'number' ? { iat } : {}),
      ...(typeof exp === 'number' ? { exp } : {}),
    };
  } catch {
    return {};
  }
}

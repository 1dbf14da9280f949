/** Gives a token, or one after the other: `token` of the client's options. */
export type TokenProvider = () => string | Promise<string>;

/**
 * A token is replaced this long before its end at the latest, milliseconds; one of a short life after nine
 * tenths of it.
 */
const EARLY_MS = 60_000;
const EARLY_PART = 0.1;
/** How long a provider may take, milliseconds: one that never answers must not hold up all later requests. */
const PROVIDE_MS_MAX = 30_000;

interface Held {
  readonly token: string;
  /** When a new one is asked for, milliseconds since 1970; never when the token does not say its end. */
  readonly refreshAtMs: number;
  readonly endsAtMs: number;
}

/**
 * The token that requests carry. What a provider gives is kept until shortly before its end, or until it is
 * refused. Requests that need a new one at the same time wait for one call of the provider.
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
    this.#provide = typeof token === 'string' ? undefined : token;
    this.#held = typeof token === 'string' ? { token, refreshAtMs: Infinity, endsAtMs: Infinity } : undefined;
    this.#now = now;
    this.#provideMsMax = provideMsMax;
  }

  /** @throws what the provider throws, unless the token that it gave before is still good. */
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
   * The token to try after `refused` was; undefined when there is no other.
   *
   * @throws what the provider throws.
   */
  async after(refused: string): Promise<string | undefined> {
    if (this.#provide === undefined) return undefined;
    // Another request may have replaced it meanwhile.
    const held = this.#held?.token === refused ? await this.#ask() : (this.#held ?? (await this.#ask()));
    return held.token === refused ? undefined : held.token;
  }

  #ask(): Promise<Held> {
    const provide = this.#provide;
    if (provide === undefined) throw new TypeError('there is no source of tokens');
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
   * A token that comes at its end, by this clock, is used until it is refused: the clock may be wrong, and
   * asking for each request helps nobody.
   */
  #heldOf(token: string): Held {
    const { iat, exp } = timesOf(token);
    if (exp === undefined) return { token, refreshAtMs: Infinity, endsAtMs: Infinity };
    const nowMs = this.#now();
    const lifeMs = exp * 1_000 - (iat === undefined ? nowMs : iat * 1_000);
    const refreshAtMs = exp * 1_000 - Math.min(EARLY_MS, lifeMs * EARLY_PART);
    return { token, refreshAtMs: refreshAtMs <= nowMs ? Infinity : refreshAtMs, endsAtMs: exp * 1_000 };
  }
}

async function inTime(token: string | Promise<string>, msMax: number): Promise<string> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the token function gave no token in ${msMax} ms`)), msMax);
  });
  try {
    return await Promise.race([token, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** When a JSON Web Token was issued and ends, seconds since 1970, as far as it says. Nothing is verified. */
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

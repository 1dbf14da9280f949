import type { Jwks } from '@bundoc/shared/contract/tokens';

/** A KEK that the store has been used with: its id and check value, both hex. Reveals nothing of the KEK. */
export interface KnownKek {
  readonly id: string;
  readonly checkValue: string;
}

/** A public key as the JWKS gives it. */
export type PublicJwk = Jwks['keys'][number];

/** What the first start makes, once and for good. */
export interface Installation {
  readonly createdAt: string;
  readonly chainKeyWrapped: Uint8Array;
  readonly signingSeedWrapped: Uint8Array;
  /** In clear and not authenticated: told to people (`bunkms status`), never trusted. */
  readonly signingKey: PublicJwk;
  readonly keks: readonly KnownKek[];
}

/** The service's own secrets, wrapped. */
export type WrappedSecrets = Pick<Installation, 'chainKeyWrapped' | 'signingSeedWrapped'>;

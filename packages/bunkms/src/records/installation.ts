import type { Jwks } from '@bundoc/shared/contract/tokens';

/**
 * A KEK that the store has been used with: its id and check value, both hex. It reveals nothing about the
 * KEK.
 */
export interface KnownKek {
  readonly id: string;
  readonly checkValue: string;
}

/** A public key in the form of the JWKS. */
export type PublicJwk = Jwks['keys'][number];

/** The installation, which the first start creates once. */
export interface Installation {
  readonly createdAt: string;
  readonly chainKeyWrapped: Uint8Array;
  readonly signingSeedWrapped: Uint8Array;
  /** Not authenticated: only shown (`bunkms status`), never trusted. */
  readonly signingKey: PublicJwk;
  readonly keks: readonly KnownKek[];
}

/** The service's own secrets, wrapped. */
export type WrappedSecrets = Pick<Installation, 'chainKeyWrapped' | 'signingSeedWrapped'>;

import { PLACES } from '@bundoc/shared/admission/gate';

/**
 * `config` of a route that reads a page of the store. The store does one thing after the other, so a few are
 * read at a time: all that an export or a change of a key may have to wait for.
 */
export const OF_PAGE = { places: PLACES / 8 } as const;

/**
 * `config` of a route that works on one key, or on a slice of the chain, and that a caller may repeat without
 * end.
 */
export const OF_ONE = { places: PLACES / 32 } as const;

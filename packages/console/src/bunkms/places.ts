import { path } from '../shell/api.ts';

/** Paths of the views. */
export const places = {
  keys: () => '/console/',
  key: (name: string) => `/console${path('keys', name)}`,
  storages: () => '/console/storages',
  audit: () => '/console/audit',
  tokens: () => '/console/tokens',
  issue: () => '/console/tokens/new',
  inspect: () => '/console/tokens/inspect',
  kek: () => '/console/kek',
  state: () => '/console/state',
};

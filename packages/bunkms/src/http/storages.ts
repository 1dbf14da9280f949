import { mayUseKey } from '@bundoc/shared/contract/grants';
import { listDeletions } from '../keys/shred-key.ts';
import { advanceStorage, storageInfo, takeOverStorage } from '../keys/storages.ts';
import type { Guards } from './guard.ts';
import type { AddRoute } from './route.ts';
import { ADVANCE, DELETIONS, READING, TAKE_OVER } from './storages.openapi.ts';

/** Storages of Bundoc: their generations and their unfinished deletions. */
export function registerStorageRoutes(add: AddRoute, guards: Guards): void {
  add(
    'GET /v1/storages/:id',
    guards.serviceForStorage('kms:read_key'),
    READING,
    ({ params: { id }, services: { keys } }) => storageInfo(keys, id),
  );
  add(
    'POST /v1/storages/:id/advance',
    guards.serviceForStorage('kms:create_key'),
    ADVANCE,
    ({ params: { id }, body, services: { keys, limits }, subject, caller }) => {
      limits.take('advance', subject);
      return advanceStorage(keys, id, body, caller);
    },
  );
  add(
    'POST /v1/storages/:id/take-over',
    guards.storage('kms:manage_key'),
    TAKE_OVER,
    ({ params: { id }, body, services: { keys }, caller }) => takeOverStorage(keys, id, body, caller),
  );
  add(
    'GET /v1/storages/:id/deletions',
    guards.service('kms:shred_key'),
    DELETIONS,
    ({ params: { id: storage }, query: { generation, limit, cursor }, services: { keys }, claims }) =>
      listDeletions(keys, { storage, generation }, { limit, after: cursor }, (name) =>
        mayUseKey(claims, name),
      ),
  );
}

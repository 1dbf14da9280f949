import { kekStatus, listStaleCopies, retireKek, rotateKek, verifyWrapping } from '../kek/kek-rotation.ts';
import type { Guards } from './guard.ts';
import { RETIREMENT, ROTATION, STATUS, UNFETCHED, VERIFICATION } from './kek.openapi.ts';
import type { AddRoute } from './route.ts';

/** The key encryption keys: their states and their rotation. No route accepts or shows a KEK. */
export function registerKekRoutes(add: AddRoute, guards: Guards): void {
  const read = guards.readKeks;
  const change = guards.service('kms:manage_kek');

  add('GET /v1/kek', read, STATUS, ({ services: { kek, limits }, subject }) => {
    limits.takeRead(subject);
    return kekStatus(kek.deps);
  });

  add('POST /v1/kek/rotate', change, ROTATION, async ({ body, services, caller }) => {
    const { deps, upkeep } = services.kek;
    await upkeep.poll();
    await rotateKek(deps, body, caller);
    upkeep.rewrap();
    return kekStatus(deps);
  });

  add('POST /v1/kek/verify', change, VERIFICATION, ({ query: { limit, cursor }, services, caller }) =>
    verifyWrapping(services.kek.deps, { limit, after: cursor }, caller),
  );

  add('POST /v1/kek/retire', change, RETIREMENT, ({ body, services, caller }) =>
    retireKek(services.kek.deps, body, caller),
  );

  add('GET /v1/kek/:kek_id/unfetched', read, UNFETCHED, ({ params, query, services, subject }) => {
    services.limits.takeRead(subject, query.limit);
    return listStaleCopies(services.kek.deps, params.kek_id, { limit: query.limit, after: query.cursor });
  });
}

import { attachKey, detachKey, rewrapVersions } from '../keys/attach-key.ts';
import type { Guards } from './guard.ts';
import { ifMatchOf, sendKey } from './if-match.ts';
import { ATTACHMENT, DETACHMENT, VERSIONS_REWRAP } from './key-outside.openapi.ts';
import type { AddRoute } from './route.ts';

/** Keys that open only with an outside key of a customer as well. */
export function registerKeyOutsideRoutes(add: AddRoute, guards: Guards): void {
  const guard = guards.serviceForKeyInPath('kms:admin');
  add('PUT /v1/keys/:name/outside', guard, ATTACHMENT, async (asked) => {
    const { params, body, services, caller, request, reply } = asked;
    const wanted = { ...body, name: params.name, ifMatch: ifMatchOf(request) };
    return sendKey(reply, await attachKey(services.keys, wanted, caller));
  });
  for (const [route, act, described] of [
    ['DELETE /v1/keys/:name/outside', detachKey, DETACHMENT],
    ['POST /v1/keys/:name/outside/rewrap', rewrapVersions, VERSIONS_REWRAP],
  ] as const)
    add(route, guard, described, async ({ params, services, caller, request, reply }) => {
      const wanted = { name: params.name, ifMatch: ifMatchOf(request) };
      return sendKey(reply, await act(services.keys, wanted, caller));
    });
}

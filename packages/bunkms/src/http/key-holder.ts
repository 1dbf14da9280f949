import { acceptKey, claimKey, offerKey, takeOverKey, withdrawKey } from '../keys/key-holder.ts';
import { finishDeletion, intendDeletion, shredKey } from '../keys/shred-key.ts';
import type { KeyDeps } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import type { Guards } from './guard.ts';
import { sendKey } from './if-match.ts';
import {
  ACCEPTANCE,
  CLAIM,
  CONTENT_REMOVED,
  DELETION_INTENT,
  OFFER,
  SHREDDING,
  TAKE_OVER,
  WITHDRAWAL,
} from './key-holder.openapi.ts';
import { requireStorageOrAdministrator } from './key-requests.ts';
import type { AddRoute, Asked, JsonRoute } from './route.ts';

/** The holder of a key, and the deletion that the holder requests. */
export function registerKeyHolderRoutes(add: AddRoute, guards: Guards): void {
  const moving = guards.serviceForKeyInPath('kms:create_key');
  const shredding = guards.serviceForKeyInPath('kms:shred_key');
  const claiming = guards.keyInPathWithAny(['kms:create_key', 'kms:manage_key']);
  add('POST /v1/keys/:name/claim', claiming, CLAIM, async (asked) => {
    const { params, body, services, claims, caller, reply } = asked;
    const isAdministrator = requireStorageOrAdministrator(claims, body.generation);
    return sendKey(reply, await claimKey(services.keys, { ...body, ...params }, isAdministrator, caller));
  });
  add('POST /v1/keys/:name/take-over', guards.keyInPath('kms:manage_key'), TAKE_OVER, changed(takeOverKey));
  add('POST /v1/keys/:name/offer', moving, OFFER, changed(offerKey));
  add('POST /v1/keys/:name/withdraw', moving, WITHDRAWAL, changed(withdrawKey));
  add('POST /v1/keys/:name/accept', moving, ACCEPTANCE, changed(acceptKey));
  add('POST /v1/keys/:name/deletion-intent', shredding, DELETION_INTENT, (asked) => {
    const { params, body, services, subject, caller } = asked;
    const { client, ...wanted } = body;
    services.limits.takeShred(subject, client);
    return intendDeletion(services.keys, { ...wanted, ...params }, caller);
  });
  add('POST /v1/keys/:name/shred', shredding, SHREDDING, changed(shredKey));
  add('POST /v1/keys/:name/content-removed', shredding, CONTENT_REMOVED, changed(finishDeletion));
}

/** Answers with the key that an action has changed. */
function changed<B extends object, K extends { readonly id: string; readonly revision: number }>(
  act: (deps: KeyDeps, wanted: B & { readonly name: string }, caller: Caller) => Promise<K>,
) {
  type Wanted = { readonly params: { readonly name: string }; readonly body: B };
  return async ({ params, body, services, caller, reply }: Wanted & Omit<Asked<JsonRoute>, keyof Wanted>) =>
    sendKey(reply, await act(services.keys, { ...body, ...params }, caller));
}

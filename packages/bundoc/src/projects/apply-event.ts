import type { KmsEvent } from '@bundoc/shared/contract/events';
import { projectOfDek } from '@bundoc/shared/contract/keys';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { StorageGeneration } from '../engine/identity/storage-generation.ts';
import type { RevokedTokens } from '../kms/revoked-tokens.ts';
import type { InstanceManager } from './instance-manager.ts';

export interface EventTargets {
  readonly storage: Pick<StorageGeneration, 'id' | 'tookOver'>;
  readonly keys: Pick<KeyCache, 'revalidate' | 'revalidateAll' | 'evict' | 'expectOutside'>;
  readonly instances: Pick<InstanceManager, 'sweep'>;
  readonly revoked: Pick<RevokedTokens, 'add'>;
  /** Waiters for the changes of a project. */
  readonly feed: { end(project: string): void };
  /** Called when a deletion of this storage may be unfinished. */
  readonly deletion: { requestCheck(): void };
}

/**
 * Applies an event from BunKMS. A key that may have been withdrawn is dropped at once, and open projects that
 * use it are closed; running requests continue.
 */
export function applyEvent(event: KmsEvent, targets: EventTargets): void {
  const { storage, keys, instances, revoked, feed, deletion } = targets;
  switch (event.type) {
    case 'token.revoke':
      revoked.add(event);
      break;
    case 'reset':
      keys.revalidateAll();
      deletion.requestCheck();
      break;
    case 'storage.take_over':
      if (event.storage === storage.id) storage.tookOver(event.generation);
      break;
    case 'heartbeat':
    case 'key.enable': // The key was dropped when it was disabled.
      break;
    // Any other event of a key may withdraw it, including events that are added later.
    default: {
      const project = projectOfDek(event.name);
      if (project === undefined) break;
      const isHolder = 'holder' in event && event.holder === storage.id;
      // An intended deletion passes to a new holder with the key. The deletions of other storages' keys are
      // not this storage's work.
      if (isHolder && (event.type === 'key.take_over' || event.type === 'key.deletion_intent'))
        deletion.requestCheck();
      // This storage has become the holder, so its cached key is valid.
      if (isHolder && (event.type === 'key.take_over' || event.type === 'key.accept')) break;
      // The previous version stays usable until the new one arrives, so that no request fails.
      if (event.type === 'key.rotate') keys.revalidate(project);
      else {
        keys.evict(project);
        if (event.type === 'key.attach') keys.expectOutside(project);
        instances.sweep();
        feed.end(project);
      }
    }
  }
}

import type { KmsEvent } from '@bundoc/shared/contract/events';
import { projectOfDek } from '@bundoc/shared/contract/keys';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { StorageGeneration } from '../engine/storage-generation.ts';
import type { RevokedTokens } from '../kms/revoked-tokens.ts';
import type { InstanceManager } from './instance-manager.ts';

export interface EventTargets {
  readonly storage: Pick<StorageGeneration, 'id' | 'tookOver'>;
  readonly keys: Pick<KeyCache, 'revalidate' | 'revalidateAll' | 'evict'>;
  readonly instances: Pick<InstanceManager, 'sweep'>;
  readonly revoked: Pick<RevokedTokens, 'add'>;
  /** Those that wait for the changes of a project. */
  readonly feed: { end(project: string): void };
  /** Told that a deletion of this storage may be unfinished. */
  readonly deletion: { look(): void };
}

/**
 * Lets what happened at BunKMS take effect here. A key that may have lost its use is dropped at once, and
 * with it the projects that are open under it; requests under way end as they began.
 */
export function applyEvent(event: KmsEvent, targets: EventTargets): void {
  const { storage, keys, instances, revoked, feed, deletion } = targets;
  switch (event.type) {
    case 'token.revoke':
      revoked.add(event);
      break;
    case 'reset':
      keys.revalidateAll();
      deletion.look();
      break;
    case 'storage.take_over':
      if (event.storage === storage.id) storage.tookOver(event.generation);
      break;
    case 'heartbeat':
    case 'key.enable': // Nothing of it is here: it was dropped when it was disabled.
      break;
    default: {
      const project = projectOfDek(event.name);
      if (project === undefined) break;
      const isHolder = 'holder' in event && event.holder === storage.id;
      // A deletion that is intended goes to a new holder with the key. Of another storage's keys, none is
      // unfinished here.
      if (isHolder && (event.type === 'key.take_over' || event.type === 'key.deletion_intent'))
        deletion.look();
      // This storage has become the holder: what it has of the key by now is its own.
      if (isHolder && (event.type === 'key.take_over' || event.type === 'key.accept')) break;
      // The former version goes on serving until the new one is here, so that no request fails.
      if (event.type === 'key.rotate') keys.revalidate(project);
      else {
        keys.evict(project);
        instances.sweep();
        feed.end(project);
      }
    }
  }
}

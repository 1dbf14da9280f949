import type { KmsEvent } from '@bundoc/shared/contract/events';
import { projectOfDek } from '@bundoc/shared/contract/keys';
import type { RevokedTokens } from '../kms/revoked-tokens.ts';
import type { InstanceManager } from './instance-manager.ts';
import type { KeyCache } from './key-cache.ts';

export interface EventTargets {
  readonly keys: Pick<KeyCache, 'revalidate' | 'revalidateAll' | 'evict'>;
  readonly instances: Pick<InstanceManager, 'sweep'>;
  readonly revoked: Pick<RevokedTokens, 'add'>;
  /** Those that wait for the changes of a project. */
  readonly feed: { end(project: string): void };
}

/**
 * Lets what happened at BunKMS take effect here. A key that may have lost its use is dropped at once, and with it
 * the projects that are open under it; requests under way end as they began.
 */
export function applyEvent(event: KmsEvent, { keys, instances, revoked, feed }: EventTargets): void {
  switch (event.type) {
    case 'token.revoke':
      revoked.add(event);
      break;
    case 'reset':
    case 'storage.take_over':
      keys.revalidateAll();
      break;
    case 'heartbeat':
    case 'key.enable': // Nothing of it is here: it was dropped when it was disabled.
      break;
    default: {
      const project = projectOfDek(event.name);
      if (project === undefined) break;
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

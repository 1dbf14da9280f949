import type { AuditLog } from '../audit/log.ts';
import type { CryptoDeps } from '../encryption/encrypt-items.ts';
import type { EventFeed } from '../events/event-feed.ts';
import type { KekDeps } from '../kek/kek-rotation.ts';
import type { KekUpkeep } from '../kek/kek-upkeep.ts';
import type { ExportDeps } from '../keys/export-key.ts';
import type { AuditStore } from '../store/audit.ts';
import type { KmsStore } from '../store/port.ts';
import type { TokenStore } from '../store/tokens.ts';
import type { TokenService } from '../tokens/token-service.ts';
import type { Receipts } from '../trust/receipts.ts';
import type { Limits } from './limits.ts';

/** The services of an unsealed process. */
export interface Services {
  readonly store: AuditStore & TokenStore & Pick<KmsStore, 'probe'>;
  readonly audit: AuditLog;
  readonly keys: ExportDeps;
  readonly crypto: CryptoDeps;
  readonly kek: { readonly deps: KekDeps; readonly upkeep: KekUpkeep };
  readonly tokens: TokenService;
  readonly limits: Limits;
  readonly events: EventFeed;
  readonly receipts: Receipts;
}

/** Returns the services. @throws AppError `sealed` while there are none. */
export type ServiceGate = () => Services;

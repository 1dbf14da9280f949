import type { AuditLog } from './audit/log.ts';
import type { CryptoPorts } from './service/crypto.ts';
import type { EventFeed } from './service/event-feed.ts';
import type { ExportPorts } from './service/export-key.ts';
import type { KekPorts } from './service/kek.ts';
import type { KekUpkeep } from './service/kek-upkeep.ts';
import type { Limits } from './service/limits.ts';
import type { TokenService } from './service/tokens.ts';
import type { KmsStore } from './store/port.ts';

/** What only an unsealed service has. */
export interface Services {
  readonly store: KmsStore;
  readonly audit: AuditLog;
  readonly keys: ExportPorts;
  readonly crypto: CryptoPorts;
  readonly kek: { readonly ports: KekPorts; readonly upkeep: KekUpkeep };
  readonly tokens: TokenService;
  readonly limits: Limits;
  readonly events: EventFeed;
}

/** Gives the services. @throws AppError `SEALED` while there are none. */
export type ServiceGate = () => Services;

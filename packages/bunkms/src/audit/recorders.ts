import { defined } from '@bundoc/shared/contract/defined';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditDraft } from '../records/chain.ts';
import { KeyUses } from './key-uses.ts';
import type { AuditLog } from './log.ts';
import { BoundedRefusals } from './refusals.ts';
import { SINGLY_MAX, StrangerRefusals } from './stranger-refusals.ts';

/** Receives records of refused and failed requests. Must not throw; callers do not wait for it. */
export interface RefusalSink {
  /** The caller has a valid token. */
  named(record: AuditDraft, count?: number): void;
  /** The caller is unknown; `network` identifies it. */
  anonymous(network: string, record: AuditDraft): void;
}

/** {@link RefusalSink} for exports. Must not reject. */
export interface ExportRefusalSink {
  /** The caller has a valid token. @returns a promise when the answer must wait for the record. */
  named(record: AuditDraft): Promise<void> | undefined;
  anonymous: RefusalSink['anonymous'];
}

/**
 * Records refusals and uses, some of them as counts. The counts are kept here until the end of their minute.
 */
export class AuditRecorders {
  readonly uses: KeyUses;
  /** For exports: each call with a valid token has a separate record. */
  readonly exports: ExportRefusalSink;
  /** For encryption: failures are cheap to cause there, so callers with a valid token are counted too. */
  readonly crypto: RefusalSink;
  readonly #minutes: readonly Pick<KeyUses['minutes'], 'flush'>[];

  constructor(audit: AuditLog, clock: Clock) {
    const write = audit.appendInBackground.bind(audit);
    const strangers = new StrangerRefusals({ clock, write });
    const cryptoCallers = new BoundedRefusals({ clock, write });
    this.uses = new KeyUses({ audit, clock });
    this.exports = {
      named: (record) => audit.record(record),
      anonymous: (network, record) => strangers.record(network, record),
    };
    this.crypto = {
      named: (record, count) => {
        const { actor, jti } = record;
        const who = defined({ actor, jti });
        cryptoCallers.record(who, record, count);
      },
      // Strangers use at most half of the single records here, so that half remain for exports.
      anonymous: (network, record) => strangers.record(network, record, SINGLY_MAX / 2),
    };
    this.#minutes = [this.uses.minutes, strangers.minutes, cryptoCallers.minutes];
  }

  /** Closes all minutes now, so that a shutdown loses no count. */
  flush(): void {
    for (const minutes of this.#minutes) minutes.flush();
  }
}

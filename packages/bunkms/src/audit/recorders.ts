import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditDraft } from '../records/chain.ts';
import { KeyUses } from './key-uses.ts';
import type { AuditLog } from './log.ts';
import { BoundedRefusals } from './refusals.ts';
import { SINGLY_MAX, StrangerRefusals } from './stranger-refusals.ts';

/** Where the records of refused and failed requests go. Must not throw, and nothing waits for it. */
export interface RefusalSink {
  /** The caller has a valid token. */
  named(record: AuditDraft, count?: number): void;
  /** Anybody; `network` is what the caller can be held to. */
  anonymous(network: string, record: AuditDraft): void;
}

/**
 * What is recorded beside what happens, some of it with a count: the counts wait here for the end of their
 * minute.
 */
export class AuditRecorders {
  readonly uses: KeyUses;
  /** Exports: each call with a valid token has a record of its own. */
  readonly exports: RefusalSink;
  /** Of encryption: failing is cheap there, so callers with a valid token are counted as well. */
  readonly crypto: RefusalSink;
  readonly #counts: readonly (KeyUses | BoundedRefusals | StrangerRefusals)[];

  constructor(audit: AuditLog, clock: Clock) {
    const write = audit.appendInBackground.bind(audit);
    const strangers = new StrangerRefusals({ clock, write });
    const cryptoCallers = new BoundedRefusals({ clock, write });
    this.uses = new KeyUses({ audit, clock });
    this.exports = { named: write, anonymous: (network, record) => strangers.record(network, record) };
    this.crypto = {
      named: (record, count) => {
        const { actor, jti } = record;
        const who = { ...(actor === undefined ? {} : { actor }), ...(jti === undefined ? {} : { jti }) };
        cryptoCallers.record(who, record, count);
      },
      // Strangers at this door leave half of the room to those at the other.
      anonymous: (network, record) => strangers.record(network, record, SINGLY_MAX / 2),
    };
    this.#counts = [this.uses, strangers, cryptoCallers];
  }

  /** Ends the minutes that are over. Call it every few seconds. */
  sweep(): void {
    for (const count of this.#counts) count.sweep();
  }

  /** Ends every minute now, so that nothing that was counted is lost at a shutdown. */
  flush(): void {
    for (const count of this.#counts) count.flush();
  }
}

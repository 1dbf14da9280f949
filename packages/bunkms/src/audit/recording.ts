import type { Clock } from '@bundoc/shared/clock';
import type { AuditDraft } from './chain.ts';
import { KeyUses } from './key-uses.ts';
import type { AuditLog } from './log.ts';
import { BoundedRefusals } from './refusals.ts';

/** Where the records of refused and failed requests go. Must not throw, and nothing waits for it. */
export interface RefusalSink {
  /** Whoever calls has a valid token. */
  named(record: AuditDraft, count?: number): void;
  /** Anybody; `network` is what the caller can be held to. */
  anonymous(network: string, record: AuditDraft): void;
}

/** What is recorded beside what happens, some of it with a count: the counts wait here for the end of their minute. */
export class Recording {
  readonly uses: KeyUses;
  /** Of exports: whoever has a valid token gets a record for each. */
  readonly exports: RefusalSink;
  /** Of encryption: failing is cheap there, so callers with a valid token are counted as well. */
  readonly crypto: RefusalSink;
  readonly #counts: readonly (KeyUses | BoundedRefusals)[];

  constructor(audit: AuditLog, clock: Clock) {
    const write = audit.appendDetached.bind(audit);
    const bounded = () => new BoundedRefusals({ clock, write });
    // Apart from each other, so that strangers at one door do not use up the room for those at another.
    const [exportStrangers, cryptoStrangers, cryptoCallers] = [bounded(), bounded(), bounded()];
    const fromStrangers = (refusals: BoundedRefusals) => (network: string, record: AuditDraft) =>
      refusals.record({ source: network }, record);
    this.uses = new KeyUses({ audit, clock });
    this.exports = { named: write, anonymous: fromStrangers(exportStrangers) };
    this.crypto = {
      named: (record, count) => {
        const { actor, jti } = record;
        const who = { ...(actor === undefined ? {} : { actor }), ...(jti === undefined ? {} : { jti }) };
        cryptoCallers.record(who, record, count);
      },
      anonymous: fromStrangers(cryptoStrangers),
    };
    this.#counts = [this.uses, exportStrangers, cryptoStrangers, cryptoCallers];
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

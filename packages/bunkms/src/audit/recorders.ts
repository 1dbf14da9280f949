import { defined } from '@bundoc/shared/contract/defined';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditDraft } from '../records/chain.ts';
import { KeyUses } from './key-uses.ts';
import type { AuditLog } from './log.ts';
import { BoundedRefusals } from './refusals.ts';

/** Networks of strangers that are recorded separately within a minute. Anybody may have many. */
const NETWORKS_MAX = 8;
/** Keys whose refusals by outside keys are counted separately within a minute. */
const KEYS_MAX = 4_096;
const OUTSIDE_CODES: ReadonlySet<string> = new Set([
  'outside_key_denied',
  'outside_key_unavailable',
  'outside_key_changed',
] satisfies ProblemCode[]);

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
  /**
   * For exports: each call with a valid token has a separate record. Only refusals by an outside key after
   * the first of a minute and key are counted: its holder decides how many there are.
   */
  readonly exports: ExportRefusalSink;
  /** For encryption: failures are cheap to cause there, so callers with a valid token are counted too. */
  readonly crypto: RefusalSink;
  readonly #minutes: readonly Pick<KeyUses['minutes'], 'flush'>[];

  constructor(audit: AuditLog, clock: Clock) {
    const write = audit.appendInBackground.bind(audit);
    const callers = new BoundedRefusals({ clock, write });
    // Separate, so that those of one kind leave room for the other.
    const strangers = new BoundedRefusals({ clock, write, max: NETWORKS_MAX });
    const cryptoStrangers = new BoundedRefusals({ clock, write, max: NETWORKS_MAX });
    this.uses = new KeyUses({ audit, clock });
    let written: Promise<void> | undefined;
    const outside = new BoundedRefusals({
      clock,
      max: KEYS_MAX,
      singlyMax: 1,
      byKey: true,
      write: (record) => {
        written = audit.record(record);
      },
    });
    this.exports = {
      named: (record) => {
        const { actor, jti, code } = record;
        if (!OUTSIDE_CODES.has(code ?? '')) return audit.record(record);
        written = undefined;
        outside.record(defined({ actor, jti }), record);
        return written;
      },
      anonymous: (source, record) => strangers.record({ source }, record),
    };
    this.crypto = {
      named: (record, count) => {
        const { actor, jti } = record;
        callers.record(defined({ actor, jti }), record, count);
      },
      anonymous: (source, record) => cryptoStrangers.record({ source }, record),
    };
    this.#minutes = [this.uses, callers, strangers, cryptoStrangers, outside].map(({ minutes }) => minutes);
  }

  /** Closes all minutes now, so that a shutdown loses no count. */
  flush(): void {
    for (const minutes of this.#minutes) minutes.flush();
  }
}

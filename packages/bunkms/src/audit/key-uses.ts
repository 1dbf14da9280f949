import { defined } from '@bundoc/shared/contract/defined';
import { type Minute, Minutes } from '@bundoc/shared/logs/minutes';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import type { AuditCondition } from '../store/audit.ts';
import type { AuditLog } from './log.ts';

/** A use of a key inside the service, and its caller. */
export interface KeyUse {
  readonly action: string;
  readonly caller: Caller;
  readonly key: string;
  readonly keyId: string;
  readonly version: number;
  /** The version that a rewrap has opened. */
  readonly fromVersion?: number;
}

export interface KeyUsesOptions {
  readonly audit: Pick<AuditLog, 'append' | 'appendInBackground'>;
  readonly clock: Clock;
}

/** Kinds of uses that are counted at the same time. */
const KINDS_MAX = 4_096;

interface Uses {
  readonly use: KeyUse;
  /** Pending while the first record is written; undefined afterwards. */
  opening: Promise<void> | undefined;
  /** Uses since the first record. */
  count: number;
}

/**
 * Records uses of keys, which are too many for one durable record each. Those of one token, action, key and
 * versions within a minute share two records. The first is durable before the first use is answered, so
 * nobody uses a key without a trace, even in a crash. The second counts the further uses; a crash loses
 * only this number. If the chain cannot be written, no new minute begins and the use fails.
 *
 * Memory is bounded: without room in {@link Minutes}, each use has its own durable record.
 */
export class KeyUses {
  readonly #options: KeyUsesOptions;
  /** A timer ends them. A shutdown flushes them, so that no count is lost. */
  readonly minutes: Minutes<Uses>;

  constructor(options: KeyUsesOptions) {
    this.#options = options;
    const { clock } = options;
    this.minutes = new Minutes({ clock, max: KINDS_MAX, onEnd: (minute) => this.#count(minute) });
  }

  /**
   * @param condition of the first record, as for `AuditLog.append`.
   * @returns undefined when a durable record covers the use already. Otherwise a promise that resolves once
   *   it does, and rejects as `AuditLog.append` does.
   */
  record(use: KeyUse, count: number, condition: AuditCondition): Promise<void> | undefined {
    const uses = this.minutes.get(String(use.caller.jti), nameOf(use));
    if (uses === undefined) return this.#open(use, count, condition);
    if (uses.opening === undefined) {
      uses.count += count;
      return undefined;
    }
    // The minute may be over by then, so the use is counted in the current one.
    return uses.opening.then(() => this.record(use, count, condition));
  }

  #open(use: KeyUse, count: number, condition: AuditCondition): Promise<void> {
    const [owner, name] = [String(use.caller.jti), nameOf(use)];
    const { audit, clock } = this.#options;
    const time = new Date(clock.now()).toISOString();
    const opening = audit.append({ ...use.caller, ...draftOf(use, time, { count }) }, condition).then(
      () => {
        uses.opening = undefined;
      },
      (error: unknown) => {
        if (this.minutes.get(owner, name) === uses) this.minutes.delete(owner, name);
        throw error;
      },
    );
    const uses: Uses = { use, opening, count: 0 };
    this.minutes.begin(owner, name, uses);
    return opening;
  }

  #count({ value: { use, count }, since }: Minute<Uses>): void {
    if (count === 0) return;
    const { audit, clock } = this.#options;
    const { actor, jti } = use.caller;
    const time = new Date(clock.now()).toISOString();
    audit.appendInBackground({ ...defined({ actor, jti }), ...draftOf(use, time, { count, since }) });
  }
}

function nameOf({ action, keyId, version, fromVersion }: KeyUse): string {
  return `${action} ${keyId} ${version} ${fromVersion}`;
}

function draftOf(
  { action, key, keyId, version, fromVersion }: KeyUse,
  time: string,
  detail: NonNullable<AuditDraft['detail']>,
): AuditDraft {
  return {
    time,
    severity: 'INFO',
    action,
    outcome: 'allowed',
    key,
    version,
    detail: { key_id: keyId, ...defined({ from_version: fromVersion }), ...detail },
  };
}

import { defined } from '@bundoc/shared/contract/defined';
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
}

export interface KeyUsesOptions {
  readonly audit: Pick<AuditLog, 'append' | 'appendInBackground'>;
  readonly clock: Clock;
}

/** How long uses of one kind share a record, milliseconds. */
const USE_WINDOW_MS = 60_000;
/**
 * Kinds of uses that are counted at the same time. A further kind evicts the oldest, which is recorded with
 * its count.
 */
const WINDOWS_MAX = 4_096;

interface Window {
  readonly use: KeyUse;
  readonly startMonotonicMs: number;
  readonly startTime: string;
  /** Pending while the first record is written; undefined afterwards. */
  opening: Promise<void> | undefined;
  /** Uses since the first record. */
  count: number;
}

/**
 * Records uses of keys, which are too many for one durable record each. Those of one token, action, key and
 * version within a minute share two records. The first is durable before the first use is answered, so nobody
 * uses a key without a trace, even in a crash. The second counts the further uses; a crash loses only this
 * number. If the chain cannot be written, no new minute begins and the use fails.
 */
export class KeyUses {
  readonly #options: KeyUsesOptions;
  /** In the order of their start. */
  readonly #windows = new Map<string, Window>();

  constructor(options: KeyUsesOptions) {
    this.#options = options;
  }

  /**
   * @param condition of the first record, as for `AuditLog.append`.
   * @returns undefined when a durable record covers the use already. Otherwise a promise that resolves once
   *   it does, and rejects as `AuditLog.append` does.
   */
  record(use: KeyUse, count: number, condition: AuditCondition): Promise<void> | undefined {
    const place = `${use.caller.jti} ${use.action} ${use.keyId} ${use.version}`;
    const present = this.#windows.get(place);
    if (present === undefined) return this.#open(place, use, count, condition);
    if (this.#isOver(present)) {
      this.#end(place, present);
      return this.#open(place, use, count, condition);
    }
    if (present.opening === undefined) {
      present.count += count;
      return undefined;
    }
    // The window may be gone by then: the use is counted in whichever window exists.
    return present.opening.then(() => this.record(use, count, condition));
  }

  /** Closes the minutes that have passed. Call it every few seconds. */
  sweep(): void {
    for (const [place, window] of this.#windows) if (this.#isOver(window)) this.#end(place, window);
  }

  /** Closes all minutes now, so that a shutdown loses no count. */
  flush(): void {
    for (const [place, window] of this.#windows) this.#end(place, window);
  }

  #open(place: string, use: KeyUse, count: number, condition: AuditCondition): Promise<void> {
    if (this.#windows.size >= WINDOWS_MAX) {
      const [oldest] = this.#windows;
      if (oldest !== undefined) this.#end(...oldest);
    }
    const { audit, clock } = this.#options;
    const startTime = new Date(clock.now()).toISOString();
    const first: AuditDraft = { ...use.caller, ...draftOf(use, startTime, { count }) };
    const opening = audit.append(first, condition).then(
      () => {
        window.opening = undefined;
      },
      (error: unknown) => {
        if (this.#windows.get(place) === window) this.#windows.delete(place);
        throw error;
      },
    );
    const window: Window = { use, startMonotonicMs: clock.monotonic(), startTime, opening, count: 0 };
    this.#windows.set(place, window);
    return opening;
  }

  #isOver({ startMonotonicMs }: Window): boolean {
    return this.#options.clock.monotonic() - startMonotonicMs >= USE_WINDOW_MS;
  }

  #end(place: string, { use, count, startTime }: Window): void {
    this.#windows.delete(place);
    if (count === 0) return;
    const { audit, clock } = this.#options;
    const { actor, jti } = use.caller;
    const who = defined({ actor, jti });
    const time = new Date(clock.now()).toISOString();
    audit.appendInBackground({ ...who, ...draftOf(use, time, { count, since: startTime }) });
  }
}

function draftOf(
  { action, key, keyId, version }: KeyUse,
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
    detail: { key_id: keyId, ...detail },
  };
}

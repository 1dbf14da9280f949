import { defined } from '@bundoc/shared/contract/defined';
import { type Minute, Minutes, OTHERS } from '@bundoc/shared/logs/minutes';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { AuditDraft } from '../records/chain.ts';
import { draftNow } from '../records/draft-now.ts';

export interface RefusalsOptions {
  readonly clock: Clock;
  /** Refusals of one caller within a minute that get separate records; {@link SINGLY_MAX} by default. */
  readonly singlyMax?: number;
  /** Whether refusals of one key and code are counted together; by default, those of one action. */
  readonly byKey?: boolean;
  /** Callers and actions that are counted separately at the same time; that of {@link Minutes} by default. */
  readonly max?: number;
  /** Receives the records; must not throw. */
  readonly write: (record: AuditDraft) => void;
}

/** Who was refused: a caller with a valid token, a stranger by its network (`source`), or many of them. */
export type Refused = Pick<AuditDraft, 'actor' | 'jti' | 'source'>;

/** Refusals of one caller within a minute that get separate records. */
const SINGLY_MAX = 10;
const OTHER_CALLERS: Refused = { source: OTHERS };

interface Refusals {
  readonly who: Refused;
  readonly first: AuditDraft;
  singly: number;
  counted: number;
}

/**
 * Records refusals. For each caller and action, or key, some per minute have separate records. The others
 * share one record with their count at the end of the minute. So every refusal is in the chain, and nobody
 * can fill the disk with them.
 *
 * Memory, and the records of many callers, are bounded: callers without room in {@link Minutes} are one.
 */
export class BoundedRefusals {
  readonly #options: RefusalsOptions;
  /** A timer ends them. A shutdown flushes them, so that no count is lost. */
  readonly minutes: Minutes<Refusals>;

  constructor(options: RefusalsOptions) {
    this.#options = options;
    const { clock, max } = options;
    this.minutes = new Minutes({ clock, ...defined({ max }), onEnd: (minute) => this.#count(minute) });
  }

  /** @param count how many refusals `draft` stands for. */
  record(who: Refused, draft: AuditDraft, count = 1): void {
    const refusals = this.#refusalsOf(who, draft);
    if (refusals.singly < (this.#options.singlyMax ?? SINGLY_MAX)) {
      refusals.singly++;
      this.#options.write(draft);
    } else refusals.counted += count;
  }

  #refusalsOf(who: Refused, draft: AuditDraft): Refusals {
    const owner = String(who.jti ?? who.source);
    const name = this.#isByKey(who) ? `${draft.code} ${draft.key}` : draft.action;
    const running = this.minutes.get(owner, name);
    if (running !== undefined) return running;
    const refusals = { who, first: draft, singly: 0, counted: 0 };
    const hasRoom = this.minutes.begin(owner, name, refusals);
    return hasRoom || who === OTHER_CALLERS ? refusals : this.#refusalsOf(OTHER_CALLERS, draft);
  }

  /** The refusals of those without room are not told apart, so their number is bounded. */
  #isByKey(who: Refused): boolean {
    return this.#options.byKey === true && who !== OTHER_CALLERS;
  }

  #count({ value: { who, first, counted }, since }: Minute<Refusals>): void {
    if (counted === 0) return;
    const { severity, action, outcome, key, code } = first;
    const common = this.#isByKey(who)
      ? { outcome, ...defined({ key, code }) }
      : { outcome: 'refused' as const };
    const detail = { count: counted, since };
    this.#options.write(draftNow(this.#options, who, action, { severity, ...common, detail }));
  }
}

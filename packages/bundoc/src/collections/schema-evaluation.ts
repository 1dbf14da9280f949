import type { FieldFault } from '@bundoc/shared/contract/problem';
import { Decimal } from '@bundoc/shared/json/decimal';
import { type TypeName, typeOf, type Value } from '../values/value.ts';

/** The evaluated members or elements of a value, as the draft defines them for `unevaluated…`. */
export type EvaluatedParts = Set<string | number>;

/**
 * A keyword of a schema, applied to a value.
 *
 * @param evaluated receives what the keyword evaluated; undefined when no schema asks for it.
 */
export type Assertion = (
  value: Value,
  evaluation: Evaluation,
  evaluated: EvaluatedParts | undefined,
) => boolean;

/** A compiled schema: its assertions for values of each type. */
export interface Subschema {
  readonly assertions: Partial<Record<TypeName, Assertion[]>>;
  /** Whether a keyword of it needs to know what the others evaluate. */
  readonly asksForEvaluated: boolean;
}

const NO_ASSERTIONS: readonly Assertion[] = [];

/** Maximum of schemas that are applied within each other. Each needs stack. */
export const APPLIED_DEPTH_MAX = 500;
/** Characters of a string, or digits of a number, that cost as much as one more application of a keyword. */
const CHARACTERS_OF_A_STEP = 64;
const DIGITS_OF_A_STEP = 4;
/** Steps for each name that is passed on; each takes memory. */
const STEPS_OF_MERGING = 4;

/** Thrown by an evaluation that takes too many steps or too much stack. */
export class TooLong extends Error {}

/**
 * The evaluation of one document. Every application of a keyword is counted, so that neither a schema nor a
 * document can make it long.
 */
export class Evaluation {
  readonly #found: { readonly path: readonly (string | number)[]; readonly message: string }[] = [];
  readonly #path: (string | number)[] = [];
  #faultsMax: number;
  #stepsLeft: number;
  #depth = 0;

  /**
   * @param stepsMax maximum number of steps. A step is a keyword applied to a value, or a name looked up.
   * @param faultsMax maximum number of faults to find; 0 for the verdict alone.
   */
  constructor(stepsMax: number, faultsMax: number) {
    this.#stepsLeft = stepsMax;
    this.#faultsMax = faultsMax;
  }

  get faults(): readonly FieldFault[] {
    return this.#found.map(({ path, message }) => ({ path: path.map(pointerPart).join(''), message }));
  }

  /** Counts steps. @throws TooLong. */
  count(steps: number): void {
    this.#stepsLeft -= steps;
    if (this.#stepsLeft < 0) throw new TooLong();
  }

  /** Whether a value meets a schema. @throws TooLong. */
  meets(schema: Subschema, value: Value, evaluated?: EvaluatedParts): boolean {
    const assertions = schema.assertions[typeOf(value)] ?? NO_ASSERTIONS;
    this.count(1 + assertions.length * sizeOf(value));
    if (++this.#depth > APPLIED_DEPTH_MAX) throw new TooLong();
    const own = schema.asksForEvaluated ? new Set<string | number>() : evaluated;
    let isMet = true;
    for (const assertion of assertions) {
      if (assertion(value, this, own)) continue;
      isMet = false;
      if (this.hasEnough) break;
    }
    if (own !== evaluated && isMet) this.#merge(own, evaluated);
    this.#depth--;
    return isMet;
  }

  /** {@link meets} for an element or member of the value, which is evaluated by that. */
  partMeets(schema: Subschema, part: Value, name: string | number, evaluated?: EvaluatedParts): boolean {
    evaluated?.add(name);
    this.#path.push(name);
    const isMet = this.meets(schema, part);
    this.#path.pop();
    return isMet;
  }

  /** {@link meets} for a schema that the value need not meet: its faults do not count. */
  wouldMeet(schema: Subschema, value: Value, evaluated?: EvaluatedParts): boolean {
    const faultsMax = this.#faultsMax;
    this.#faultsMax = 0;
    const own = evaluated && new Set<string | number>();
    const isMet = this.meets(schema, value, own);
    if (isMet) this.#merge(own, evaluated);
    this.#faultsMax = faultsMax;
    return isMet;
  }

  /** Whether something holds for each item. After a fault it looks for more of them if those are wanted. */
  each<T>(items: readonly T[], holds: (item: T, at: number) => boolean): boolean {
    this.count(items.length);
    let isMet = true;
    for (let at = 0; at < items.length; at++) {
      if (holds(items[at] as T, at)) continue;
      isMet = false;
      if (this.hasEnough) break;
    }
    return isMet;
  }

  /** Records a fault of the current value. @returns false. */
  fail(message: string): false {
    if (!this.hasEnough) this.#found.push({ path: [...this.#path], message });
    return false;
  }

  get hasEnough(): boolean {
    return this.#found.length >= this.#faultsMax;
  }

  #merge(from: EvaluatedParts | undefined, into: EvaluatedParts | undefined): void {
    if (from === undefined || into === undefined) return;
    this.count(from.size * STEPS_OF_MERGING);
    for (const part of from) into.add(part);
  }
}

function sizeOf(value: Value): number {
  if (typeof value === 'string') return 1 + Math.floor(value.length / CHARACTERS_OF_A_STEP);
  if (value instanceof Decimal) return 1 + Math.floor(value.digits.length / DIGITS_OF_A_STEP);
  return 1;
}

function pointerPart(name: string | number): string {
  return `/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

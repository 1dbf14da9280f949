import { type Decimal, decimalOf, parseNumber } from '@bundoc/shared/json/decimal';

/** Maximum digits before and after the decimal point of a number in a sum. Money has fewer. */
export const SUM_PLACES_MAX = 1_000;
/** Significant digits of an average, as of a decimal128. */
const AVERAGE_DIGITS = 34;

/** Integers up to which a double keeps all decimals of a fixed number of places apart. */
const EXACT_MAX = 1e15;
const SMALL_PLACES_MAX = 15;

/**
 * The exact sum of decimal numbers, in any order. Short numbers are added as integers of a common unit in a
 * double, others in a BigInt.
 */
export class ExactSum {
  #count = 0;
  /** In units of `10^-places`, without {@link #small}. */
  #large = 0n;
  #places = 0;
  /** In units of `10^-smallPlaces`, which is `1 / scale`. */
  #small = 0;
  #smallPlaces = 0;
  #scale = 1;
  /** The most digits before the decimal point so far. */
  #whole = 0;

  /** @returns false, without adding it, for a number beyond {@link SUM_PLACES_MAX}. */
  add(number: number | Decimal): boolean {
    if (typeof number !== 'number' || !this.#addShort(number)) {
      const { negative, digits, point } = decimalOf(number);
      const places = digits.length - point;
      if (point > SUM_PLACES_MAX || places > SUM_PLACES_MAX) return false;
      if (typeof number !== 'number' || !this.#addShortWith(places, number)) {
        this.#whole = Math.max(this.#whole, point);
        this.#put(BigInt(negative ? `-${digits}` : digits), places);
      }
    }
    this.#count++;
    return true;
  }

  /** Memory beyond that of a sum of short numbers, approximately. */
  get bytes(): number {
    return Math.ceil((this.#whole + this.#places) / 2);
  }

  get total(): number | Decimal {
    this.#flush();
    return parseNumber(`${this.#large}e${-this.#places}`);
  }

  /** To {@link AVERAGE_DIGITS} digits, half to even; undefined for no numbers. */
  get average(): number | Decimal | undefined {
    if (this.#count === 0) return undefined;
    this.#flush();
    const divisor = BigInt(this.#count);
    const size = this.#large < 0n ? -this.#large : this.#large;
    // The quotient has at least one digit more than the average.
    const zeros = Math.max(0, AVERAGE_DIGITS + 1 + String(divisor).length - String(size).length);
    const dividend = size * 10n ** BigInt(zeros);
    const quotient = dividend / divisor;
    const cut = Math.max(0, String(quotient).length - AVERAGE_DIGITS);
    const unit = 10n ** BigInt(cut);
    let kept = quotient / unit;
    // What is cut, against half of the last digit that is kept: both times the divisor and 2.
    const rest = 2n * (dividend - kept * unit * divisor);
    const half = unit * divisor;
    if (rest > half || (rest === half && kept % 2n === 1n)) kept++;
    return parseNumber(`${this.#large < 0n ? '-' : ''}${kept}e${cut - zeros - this.#places}`);
  }

  /** @returns whether the number is a whole number of the unit. */
  #addShort(number: number): boolean {
    const units = Math.round(number * this.#scale);
    // A double of at most 15 digits is this decimal exactly if the division gives it back.
    if (!(Math.abs(units) <= EXACT_MAX) || units / this.#scale !== number) return false;
    this.#small += units;
    if (Math.abs(this.#small) > EXACT_MAX) this.#flush();
    return true;
  }

  #addShortWith(places: number, number: number): boolean {
    if (places <= this.#smallPlaces || places > SMALL_PLACES_MAX) return false;
    this.#flush();
    this.#smallPlaces = places;
    this.#scale = Number(`1e${places}`);
    return this.#addShort(number);
  }

  #flush(): void {
    if (this.#small !== 0) this.#put(BigInt(this.#small), this.#smallPlaces);
    this.#small = 0;
  }

  #put(units: bigint, places: number): void {
    if (places > this.#places) {
      this.#large *= 10n ** BigInt(places - this.#places);
      this.#places = places;
    }
    this.#large += units * 10n ** BigInt(this.#places - places);
  }
}

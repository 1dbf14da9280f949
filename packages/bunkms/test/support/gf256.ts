/**
 * Shamir's secret sharing as `docs/formats/kek-shares.md` describes it, without tables and without the
 * library that the product uses.
 */

/** The product of two bytes as polynomials, modulo x^8 + x^4 + x^3 + x + 1. */
export function times(one: number, other: number): number {
  let product = 0;
  for (let bit = 7; bit >= 0; bit--) {
    product <<= 1;
    if (product & 0x100) product ^= 0x11b;
    if ((other >> bit) & 1) product ^= one;
  }
  return product;
}

/** By trying all: a byte that is not 0 has one inverse. */
const INVERSES = Array.from({ length: 256 }, (_, byte) =>
  Array.from({ length: 256 }, (_, other) => other).find((other) => times(byte, other) === 1),
);

/** The value at `x` of the polynomial of the lowest degree through these points. */
function valueAt(x: number, points: readonly (readonly [x: number, y: number])[]): number {
  return points.reduce((sum, [xi, yi]) => {
    const basis = points
      .filter(([xj]) => xj !== xi)
      .reduce((product, [xj]) => times(product, times(x ^ xj, INVERSES[xi ^ xj] ?? 0)), 1);
    return sum ^ times(yi, basis);
  }, 0);
}

/** The secret of shares that end with their x. */
export function joined(shares: readonly Uint8Array[]): Buffer {
  const [first = new Uint8Array()] = shares;
  return Buffer.from(
    Array.from(first.subarray(0, -1), (_, at) =>
      valueAt(
        0,
        shares.map((share) => [share.at(-1) ?? 0, share[at] ?? 0]),
      ),
    ),
  );
}

/** Shares at these places. @param coefficients of one byte, from the second on. */
export function sharesOf(
  secret: Uint8Array,
  xs: readonly number[],
  coefficients: () => readonly number[],
): Uint8Array[] {
  const polynomials = Array.from(secret, (byte) => [byte, ...coefficients()]);
  return xs.map((x) =>
    Uint8Array.from([
      ...polynomials.map((all) => all.reduceRight((value, factor) => times(value, x) ^ factor, 0)),
      x,
    ]),
  );
}

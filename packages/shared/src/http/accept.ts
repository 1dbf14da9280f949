/** A media range of an `Accept` header, with its quality. */
interface Range {
  readonly type: string;
  readonly quality: number;
}

const QUALITY = /^q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/;

/**
 * The media type of `offered` that an `Accept` header prefers (RFC 9110, section 12.5.1). Quality decides,
 * then how exactly the type is named, then its place in the header, then the order of `offered`. Parameters
 * other than `q`, and ranges that are malformed, are ignored.
 *
 * @returns undefined when the header accepts none of them, or there is no header.
 */
export function preferred<T extends string>(
  accept: string | undefined,
  offered: readonly T[],
): T | undefined {
  if (accept === undefined) return undefined;
  const ranges = accept.split(',').flatMap((text) => rangeOf(text) ?? []);
  let best: (Weight & { readonly type: T }) | undefined;
  for (const type of offered) {
    const weight = weigh(type, ranges);
    if (weight !== undefined && weight.quality > 0 && (best === undefined || outweighs(weight, best)))
      best = { type, ...weight };
  }
  return best?.type;
}

interface Weight {
  readonly quality: number;
  /** 2 for a full type, 1 for `type/*`, 0 for `*\/*`. */
  readonly precision: number;
  /** The position of the range in the header. */
  readonly place: number;
}

function outweighs(one: Weight, other: Weight): boolean {
  if (one.quality !== other.quality) return one.quality > other.quality;
  if (one.precision !== other.precision) return one.precision > other.precision;
  return one.place < other.place;
}

/** The quality of a type, from the most specific range that matches it; undefined when none does. */
function weigh(type: string, ranges: readonly Range[]): Weight | undefined {
  const names = ['*/*', `${type.slice(0, type.indexOf('/'))}/*`, type];
  for (let precision = names.length - 1; precision >= 0; precision--) {
    const place = ranges.findIndex((range) => range.type === names[precision]);
    const range = ranges[place];
    if (range !== undefined) return { quality: range.quality, precision, place };
  }
  return undefined;
}

function rangeOf(text: string): Range | undefined {
  const [type = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase());
  if (type === '') return undefined;
  const weight = parameters.find((parameter) => parameter.startsWith('q='));
  if (weight === undefined) return { type, quality: 1 };
  const quality = QUALITY.exec(weight)?.[1];
  return quality === undefined ? undefined : { type, quality: Number(quality) };
}

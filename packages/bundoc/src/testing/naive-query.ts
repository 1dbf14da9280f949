/**
 * A second, slow evaluator of conditions, written from docs/query.md alone for the tests to compare with: it
 * lists all values at a path, computes with integers, and shares no code with `query/`.
 */

/** JSON whose numbers are fractions `n / 10^40`, in a wrapper. */
export type Naive =
  | null
  | boolean
  | string
  | { readonly n: bigint }
  | readonly Naive[]
  | ReadonlyMap<string, Naive>;

export const SCALE = 40;
const ONE = 10n ** BigInt(SCALE);

/** Reads what `JSON.stringify`-like writers of the tests made: exponents up to 30. */
export function naiveOf(text: string): Naive {
  // Numbers become strings with a mark that no string of the tests begins with.
  const marked = text.replace(
    /("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/g,
    (_all, string, number) => (string === undefined ? JSON.stringify(`\u0001${number}`) : string),
  );
  return convert(JSON.parse(marked));
}

function convert(value: unknown): Naive {
  if (typeof value === 'string') return value.startsWith('\u0001') ? { n: fraction(value.slice(1)) } : value;
  if (value === null || typeof value === 'boolean') return value;
  if (Array.isArray(value)) return value.map(convert);
  return new Map(Object.entries(value as object).map(([name, member]) => [name, convert(member)]));
}

function fraction(text: string): bigint {
  const [, sign, whole, part = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(
    text,
  ) as unknown as string[];
  const value = BigInt(`${whole}${part}`) * 10n ** BigInt(SCALE - part.length + Number(exponent));
  return sign === '-' ? -value : value;
}

const isNumber = (v: Naive): v is { n: bigint } => typeof v === 'object' && v !== null && 'n' in v;
const isMap = (v: Naive): v is ReadonlyMap<string, Naive> => v instanceof Map;
const isList = (v: Naive): v is readonly Naive[] => Array.isArray(v);

function rank(v: Naive): number {
  if (v === null) return 0;
  if (typeof v === 'boolean') return 1;
  if (isNumber(v)) return 2;
  if (typeof v === 'string') return 3;
  return isList(v) ? 4 : 5;
}

const NAMES = ['null', 'boolean', 'number', 'string', 'array', 'object'];

/** -1, 0 or 1; undefined is absence and comes first. */
export function naiveCompare(a: Naive | undefined, b: Naive | undefined): number {
  if (a === undefined || b === undefined) return Number(a !== undefined) - Number(b !== undefined);
  if (rank(a) !== rank(b)) return Math.sign(rank(a) - rank(b));
  if (isNumber(a) && isNumber(b)) return a.n < b.n ? -1 : Number(a.n > b.n);
  if (typeof a === 'string' && typeof b === 'string')
    return naiveLists(points(a), points(b), (x, y) => x - y);
  if (isList(a) && isList(b)) return naiveLists(a, b, naiveCompare);
  if (isMap(a) && isMap(b)) {
    const entries = (map: ReadonlyMap<string, Naive>) => [...map].sort(([x], [y]) => naiveCompare(x, y));
    return naiveLists(entries(a), entries(b), ([x, v], [y, w]) => naiveCompare(x, y) || naiveCompare(v, w));
  }
  return Math.sign(Number(a) - Number(b));
}

const points = (text: string) => Array.from(text, (c) => c.codePointAt(0) as number);

function naiveLists<T>(a: readonly T[], b: readonly T[], compare: (x: T, y: T) => number): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = compare(a[i] as T, b[i] as T);
    if (order !== 0) return Math.sign(order);
  }
  return Math.sign(a.length - b.length);
}

/** All values at a path. */
export function naiveValues(value: Naive, path: readonly string[]): Naive[] {
  const [name, ...rest] = path;
  if (name === undefined) return [value];
  if (isMap(value)) return value.has(name) ? naiveValues(value.get(name) as Naive, rest) : [];
  if (!isList(value)) return [];
  const indexed =
    /^\d+$/.test(name) && Number(name) < value.length ? naiveValues(value[Number(name)] as Naive, rest) : [];
  return [...indexed, ...value.filter(isMap).flatMap((element) => naiveValues(element, path))];
}

export function naiveMatches(document: Naive, where: Naive): boolean {
  return [...(where as ReadonlyMap<string, Naive>)].every(([name, operand]) => {
    if (name === '$and') return (operand as Naive[]).every((one) => naiveMatches(document, one));
    if (name === '$or') return (operand as Naive[]).some((one) => naiveMatches(document, one));
    if (name === '$nor') return !(operand as Naive[]).some((one) => naiveMatches(document, one));
    return naiveCondition(naiveValues(document, name.split('.')), operand, true);
  });
}

function naiveCondition(whole: readonly Naive[], operand: Naive, opened: boolean): boolean {
  if (!isMap(operand) || operand.size === 0 || ![...operand.keys()][0]?.startsWith('$'))
    return naiveTest(whole, '$eq', operand, opened);
  const folds = operand.get('$options') === 'i';
  return [...operand].every(
    ([op, wanted]) => op === '$options' || naiveTest(whole, op, wanted, opened, folds),
  );
}

/** Case by case, for one character after the other. */
const folded = (text: string) => Array.from(text, (one) => one.toLowerCase().toUpperCase()).join('');

function naiveTest(
  whole: readonly Naive[],
  op: string,
  wanted: Naive,
  opened: boolean,
  folds = false,
): boolean {
  const all = opened ? whole.flatMap((value) => (isList(value) ? [value, ...value] : [value])) : whole;
  const placeIn = (value: string, part: string, least: number) =>
    folds ? folded(value).indexOf(folded(part), least) : value.indexOf(part, least);
  const ranged = (holds: (order: number) => boolean) =>
    all.some((value) => rank(value) === rank(wanted) && holds(naiveCompare(value, wanted)));
  switch (op) {
    case '$eq':
      return all.some((value) => naiveCompare(value, wanted) === 0);
    case '$ne':
      return !naiveTest(whole, '$eq', wanted, opened);
    case '$gt':
      return ranged((order) => order > 0);
    case '$gte':
      return ranged((order) => order >= 0);
    case '$lt':
      return ranged((order) => order < 0);
    case '$lte':
      return ranged((order) => order <= 0);
    case '$in':
      return (wanted as Naive[]).some((one) => naiveTest(whole, '$eq', one, opened));
    case '$nin':
      return !naiveTest(whole, '$in', wanted, opened);
    case '$all':
      return (
        (wanted as Naive[]).length > 0 &&
        (wanted as Naive[]).every((one) => naiveTest(whole, '$eq', one, opened))
      );
    case '$exists':
      return whole.length > 0 === wanted;
    case '$type':
      return all.some((value) => [wanted].flat().includes(NAMES[rank(value)] as string));
    case '$size':
      return whole.some(
        (value) =>
          isList(value) && naiveCompare({ n: BigInt(value.length) * 10n ** BigInt(SCALE) }, wanted) === 0,
      );
    case '$beginsWith':
      return all.some((value) => typeof value === 'string' && placeIn(value, wanted as string, 0) === 0);
    case '$contains':
      return all.some((value) => typeof value === 'string' && placeIn(value, wanted as string, 0) >= 0);
    case '$endsWith':
      return all.some((value) => {
        if (typeof value !== 'string') return false;
        const [long, end] = folds ? [folded(value), folded(wanted as string)] : [value, wanted as string];
        return long.length >= end.length && long.slice(long.length - end.length) === end;
      });
    case '$mod': {
      const [by, rest] = (wanted as readonly { n: bigint }[]).map(({ n }) => n) as [bigint, bigint];
      return all.some((value) => isNumber(value) && value.n % ONE === 0n && value.n % by === rest);
    }
    case '$not':
      return !naiveCondition(whole, wanted, opened);
    case '$elemMatch': {
      const names = [...(wanted as ReadonlyMap<string, Naive>).keys()];
      const onElement = names.some((name) => name.startsWith('$') && !['$and', '$or', '$nor'].includes(name));
      return whole.some(
        (value) =>
          isList(value) &&
          value.some((element) =>
            onElement
              ? naiveCondition([element], wanted, false)
              : (isMap(element) || isList(element)) && naiveMatches(element, wanted),
          ),
      );
    }
    default:
      throw new Error(`the naive evaluator knows no ${op}`);
  }
}

/** Types of columns that are sent to the server as arrays. */
type ColumnType = 'text' | 'integer' | 'bigint' | 'bytea';
type ColumnTypes = Readonly<Record<string, ColumnType>>;

/** A row: numbers, project ids as text, and bytes in hex. */
type RowOf<T extends ColumnTypes> = {
  readonly [name in keyof T]: T[name] extends 'text' | 'bytea' ? string : number;
};

/**
 * Rows as parameters of a statement: an array for each column, in PostgreSQL's text format. The driver would
 * inspect each element, which takes longer than all other work of a node for a row.
 */
export class RowParameters<T extends ColumnTypes> {
  readonly #types: T;
  /** Number of parameters. */
  readonly count: number;
  /** For a FROM clause. */
  readonly unnest: string;
  /** The arrays, by column name. */
  readonly arrays: { readonly [name in keyof T]: string };

  /** @param first the number of the first parameter. */
  constructor(types: T, first: number) {
    this.#types = types;
    const names = Object.keys(types);
    this.count = names.length;
    const parameters = names.map((name, at) => [name, `$${first + at}::${types[name]}[]`] as const);
    this.arrays = Object.fromEntries(parameters) as typeof this.arrays;
    this.unnest = `unnest(${Object.values(this.arrays).join(', ')}) AS r(${names.join(', ')})`;
  }

  collect(): RowCollector<T> {
    return new RowCollector(this.#types);
  }
}

/** Collects rows for a statement. */
export class RowCollector<T extends ColumnTypes> {
  readonly #columns: readonly (readonly [name: keyof T, type: ColumnType, elements: (string | number)[]])[];

  constructor(types: T) {
    this.#columns = Object.entries(types).map(([name, type]) => [name, type, []]);
  }

  push(row: RowOf<T>): void {
    for (const [name, , elements] of this.#columns) elements.push(row[name]);
  }

  /** The parameters, in the order of the columns. */
  values(): string[] {
    return this.#columns.map(([, type, elements]) => arrayOf(elements, type));
  }
}

function arrayOf(elements: readonly (string | number)[], type: ColumnType): string {
  switch (type) {
    case 'text':
      return textArray(elements as string[]);
    case 'bytea':
      return byteaArray(elements as string[]);
    default:
      return numberArray(elements as number[]);
  }
}

export function numberArray(numbers: readonly number[]): string {
  return `{${numbers.join()}}`;
}

/** @param texts project ids, which contain neither quotes nor backslashes. */
export function textArray(texts: readonly string[]): string {
  return texts.length === 0 ? '{}' : `{"${texts.join('","')}"}`;
}

/** @param hex the elements in hex. */
export function byteaArray(hex: readonly string[]): string {
  return hex.length === 0 ? '{}' : `{"\\\\x${hex.join('","\\\\x')}"}`;
}

/** The option that every command has. */
export interface JsonOption {
  readonly json?: true;
}

/** Prints a result: as JSON with `--json`, else as lines for a person. */
export function print({ json }: JsonOption, result: unknown, lines: () => Iterable<string>): void {
  if (json) console.log(JSON.stringify(result));
  else for (const line of lines()) console.log(line);
}

/** One line for each fact. */
export function factLines(facts: object): string[] {
  return Object.entries(facts).map(([name, value]) => `${name}: ${String(value)}`);
}

/** The fields of a row, without absent ones. */
export function rowLine(...fields: readonly (string | number | undefined)[]): string {
  return fields.filter((field) => field !== undefined).join('  ');
}

/** A function that {@link Work.elsewhere} runs in another thread. Its input and output are copied. */
export interface Job<I, O> {
  /** The module whose export `JOBS` contains it. The thread imports that module. */
  readonly module: string;
  readonly name: string;
  readonly run: (input: I) => O;
}

type Functions = Readonly<Record<string, (input: never) => unknown>>;
export type Jobs<F extends Functions> = {
  readonly [N in keyof F]: Job<Parameters<F[N]>[0], ReturnType<F[N]>>;
};

/**
 * The jobs of a module, which it exports as `JOBS`.
 *
 * @param module its `import.meta.url`.
 */
export function defineJobs<F extends Functions>(module: string, functions: F): Jobs<F> {
  const jobs = Object.entries(functions).map(([name, run]) => [name, { module, name, run }]);
  return Object.fromEntries(jobs) as Jobs<F>;
}

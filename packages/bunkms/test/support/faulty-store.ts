import type { KmsStore } from '../../src/store/port.ts';

/** A store whose methods a test may replace, one by one and while the service runs. */
export class FaultyStore {
  /** Called instead of the method of the same name, with the real method as first argument. */
  // biome-ignore lint/suspicious/noExplicitAny: it covers methods of every shape.
  readonly replaced: { [Name in keyof KmsStore]?: (real: (...args: any[]) => any, ...args: any[]) => any } =
    {};

  readonly decorate = (store: KmsStore): KmsStore =>
    new Proxy(store, {
      get: (target, name: keyof KmsStore) => {
        const real = target[name] as ((...args: unknown[]) => unknown) | undefined;
        if (real === undefined) return undefined; // A promise reads "then" of the value that it resolves to.
        return (...args: unknown[]) => {
          const replacement = this.replaced[name];
          return replacement === undefined ? real(...args) : replacement(real, ...args);
        };
      },
    });
}

import { isDeepStrictEqual } from 'node:util';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Logger } from '@bundoc/shared/logs/logger';
import { ConfigError } from '@bundoc/shared/process/config';
import { every } from '@bundoc/shared/runtime/clock';
import type { BoundedKey } from './bounded-key.ts';
import { allowsKey, entryOfBirth, type OutsideEntries, type OutsideEntry, readEntries } from './entries.ts';
import { type CallListener, openOutsideKey } from './open-key.ts';
import type { OutsideKey, OutsideKeyPort } from './port.ts';

/** How often the file is checked, milliseconds. */
const CHECK_EVERY_MS = 5_000;

export interface OutsideKeysOptions {
  /** `BUNKMS_OUTSIDE_KEYS_FILE`. */
  readonly file: string;
  readonly logger: Logger;
  readonly checkEveryMs?: number | undefined;
  /** Counts the calls; commands do not. */
  readonly calls?: OutsideCalls;
}

/** Counts calls by entry. */
interface OutsideCalls {
  /** The names of all entries, whenever the file was read. */
  entries(names: readonly string[]): void;
  readonly ended: CallListener;
}

/**
 * The outside keys of a running service. Their file is read again when it changes. A faulty file keeps the
 * last good one, or none at the start: nothing stops because of it.
 */
export class OutsideKeys implements OutsideKeyPort, AsyncDisposable {
  readonly #options: OutsideKeysOptions;
  readonly #timer: Disposable;
  #stamp: string | undefined;
  #entries: OutsideEntries = new Map();
  #faults: readonly string[] = [];
  readonly #opened = new Map<string, { readonly entry: OutsideEntry; readonly key: Promise<BoundedKey> }>();

  constructor(options: OutsideKeysOptions) {
    this.#options = options;
    this.check();
    this.#timer = every(options.checkEveryMs ?? CHECK_EVERY_MS, () => this.check());
  }

  /** A value that differs after the entries have changed. */
  get stamp(): string {
    return this.#stamp ?? '';
  }

  /** What is wrong with the file now; empty when it is in use. */
  get faults(): readonly string[] {
    return this.#faults;
  }

  /** Names in the file, in its order. */
  get names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** Undefined when no entry has the name. Opened once for each state of its entry. */
  async find(name: string): Promise<OutsideKey | undefined> {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    const before = this.#opened.get(name);
    if (before?.entry === entry) return await before.key;
    const opened = { entry, key: openOutsideKey(name, entry, this.#options.calls?.ended) };
    this.#opened.set(name, opened);
    // A package that was missing may be there the next time. Meanwhile the entry may have changed.
    opened.key.catch(() => {
      if (this.#opened.get(name) === opened) this.#opened.delete(name);
    });
    return await opened.key;
  }

  allows(name: string, keyName: string): boolean {
    return allowsKey(this.#entries, name, keyName);
  }

  ofBirth(keyName: string): string | undefined {
    return entryOfBirth(this.#entries, keyName);
  }

  async openFresh(name: string): Promise<BoundedKey | undefined> {
    const entry = this.#entries.get(name);
    return entry === undefined ? undefined : await openOutsideKey(name, entry, this.#options.calls?.ended);
  }

  /** Reads the file again if it has changed. Runs periodically; tests call it directly. */
  check(): void {
    const { file, logger } = this.#options;
    const stamp = stampOf(file);
    if (stamp === this.#stamp) return;
    const isFirst = this.#stamp === undefined;
    this.#stamp = stamp;
    try {
      this.#replace(readEntries(file));
      this.#faults = [];
      if (!isFirst) logger.info({ names: this.names }, 'the outside keys were read again');
    } catch (error) {
      this.#faults = error instanceof ConfigError ? error.faults : [formatError(error)];
      const what = isFirst ? 'there are no outside keys' : 'the last good ones stay';
      logger.error({ faults: this.#faults }, `the file of outside keys is faulty: ${what}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer[Symbol.dispose]();
    await Promise.all([...this.#opened.keys()].map((name) => this.#close(name)));
  }

  /** Keys whose entries stay the same stay open, with their connections. */
  #replace(entries: OutsideEntries): void {
    const kept = new Map(
      Array.from(entries, ([name, entry]) => {
        const before = this.#entries.get(name);
        return [name, isDeepStrictEqual(before, entry) ? (before as OutsideEntry) : entry];
      }),
    );
    this.#entries = kept;
    this.#options.calls?.entries(this.names);
    for (const [name, { entry }] of this.#opened) if (kept.get(name) !== entry) void this.#close(name);
  }

  async #close(name: string): Promise<void> {
    const opened = this.#opened.get(name);
    this.#opened.delete(name);
    const key = await opened?.key.catch(() => undefined);
    await key?.[Symbol.asyncDispose]().catch(() => undefined);
  }
}

import { GENESIS } from '../../records/chain.ts';
import type { LoadEntry, StoreEntry } from '../transfer.ts';
import type { ChainWriter } from './chain-writer.ts';
import { insertInstallation, readInstallation } from './installation-table.ts';
import type { Repository } from './repository.ts';
import { row, type Sql } from './statement.ts';

const BATCH = 500;
/** Keys per batch; each may have many versions. */
const KEYS = 20;

/** Reads all entries of a store in batches, inside a snapshot. */
export class EntryReader {
  readonly #repository: Repository;
  /** The present reader. At its end, each reader sets the next one. */
  #read: (() => Sql<readonly StoreEntry[]>) | undefined = () => this.#installation();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /** The next batch; an empty one at the end. */
  *next(): Sql<readonly StoreEntry[]> {
    while (this.#read !== undefined) {
      const batch = yield* this.#read();
      if (batch.length > 0) return batch;
    }
    return [];
  }

  *#installation(): Sql<readonly StoreEntry[]> {
    this.#read = () => this.#recordsAfter(undefined);
    const installation = yield* readInstallation();
    return installation === undefined ? [] : [{ kind: 'installation', installation }];
  }

  *#recordsAfter(after: number | undefined): Sql<readonly StoreEntry[]> {
    const records = yield* this.#repository.audit.after(after, BATCH);
    const last = records.at(-1);
    this.#read = last === undefined ? () => this.#keysAfter('') : () => this.#recordsAfter(last.seq);
    return records.map((record) => ({ kind: 'record', record }));
  }

  *#keysAfter(after: string): Sql<readonly StoreEntry[]> {
    const keys = yield* this.#repository.keys.after(after, KEYS);
    const versions = yield* this.#repository.keys.allVersions(keys.map(({ id }) => id));
    const last = keys.at(-1);
    this.#read = last === undefined ? () => this.#tokensAfter(0) : () => this.#keysAfter(last.name);
    return keys.flatMap((key): StoreEntry[] => [
      { kind: 'key', key },
      ...(versions.get(key.id) ?? []).map((version) => ({ kind: 'version', version }) as const),
    ]);
  }

  *#tokensAfter(after: number): Sql<readonly StoreEntry[]> {
    const tokens = yield* this.#repository.tokens.after(after, BATCH);
    const last = tokens.at(-1);
    this.#read = last === undefined ? undefined : () => this.#tokensAfter(last.number);
    return tokens.map(({ token }) => ({ kind: 'token', token }));
  }
}

/** Whether the store is empty. */
export function* isEmpty({ audit }: Repository): Sql<boolean> {
  if ((yield* audit.head()).seq !== GENESIS.seq) return false;
  const found = yield* row(
    'SELECT 1 FROM keys UNION ALL SELECT 1 FROM tokens UNION ALL SELECT 1 FROM installation LIMIT 1',
  );
  return found === undefined;
}

/** Inserts entries into an empty store. */
export function* putEntries(
  { keys, tokens }: Repository,
  chain: ChainWriter,
  entries: readonly LoadEntry[],
): Sql<void> {
  for (const entry of entries) {
    switch (entry.kind) {
      case 'installation':
        yield* insertInstallation(entry.installation);
        break;
      case 'record':
        chain.take(entry.record);
        break;
      case 'new-record':
        chain.append(entry.draft);
        break;
      case 'key':
        yield* keys.put(entry.key);
        break;
      case 'version':
        yield* keys.putVersions([entry.version]);
        break;
      case 'token':
        yield* tokens.insert(entry.token);
    }
  }
}

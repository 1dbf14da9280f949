import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { print } from '@bundoc/shared/cli/print';
import { Table } from '@bundoc/shared/cli/table';
import { formatCauses } from '@bundoc/shared/logs/error-line';
import { suggestFor } from '@bundoc/shared/logs/unknown-names';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import type { BoundedKey } from '../outside/bounded-key.ts';
import {
  allowsKey,
  entryOfBirth,
  type OutsideEntries,
  type OutsideEntry,
  placeOfEntry,
  readEntries,
} from '../outside/entries.ts';
import { openOutsideKey } from '../outside/open-key.ts';
import { type OutsideFault, OutsideKeyError, type OutsideKeyPort } from '../outside/port.ts';
import { addCustomerKeyCommands } from './customer-keys.ts';
import { CliFailure, EXIT } from './errors.ts';
import { openFilesOf } from './secret-files.ts';

/**
 * The outside keys of one command, which opens each at its first use. They are closed at its end, and none is
 * found after that.
 *
 * @throws ConfigError from `find` for a faulty file.
 */
export function commandKeys(file: string | undefined): OutsideKeyPort & AsyncDisposable {
  const opened = new Map<string, Promise<BoundedKey>>();
  let read: OutsideEntries | undefined;
  let isClosed = false;
  const entries = (): OutsideEntries => {
    read ??= file === undefined ? new Map() : readEntries(file);
    return read;
  };
  return {
    find: async (name) => {
      // A key that is opened now would never be closed, and its process would keep this one alive.
      if (isClosed) return undefined;
      const entry = entries().get(name);
      if (entry === undefined) return undefined;
      const key = opened.get(name) ?? openPrepared(name, entry);
      opened.set(name, key);
      return await key;
    },
    allows: (name, keyName) => allowsKey(entries(), name, keyName),
    ofBirth: (keyName) => entryOfBirth(entries(), keyName),
    openFresh: async (name) => {
      const entry = entries().get(name);
      return entry === undefined ? undefined : await openOutsideKey(name, entry);
    },
    [Symbol.asyncDispose]: async () => {
      isClosed = true;
      // One that could not be opened has told so already, and another one may have served.
      for (const key of opened.values()) await (await key.catch(() => undefined))?.[Symbol.asyncDispose]();
    },
  };
}

async function openPrepared(name: string, entry: OutsideEntry): Promise<BoundedKey> {
  const key = await openOutsideKey(name, entry);
  await key.prepare();
  return key;
}

/** What `outside check` found of one key. */
interface CheckedKey {
  readonly name: string;
  readonly kind: string;
  readonly works: boolean;
  /** Of a wrap and an unwrap together. */
  readonly latency_ms?: number;
  readonly fault?: OutsideFault;
  readonly cause?: string;
  readonly remedy?: string;
  /** What an operator should mend although the key may work. */
  readonly warnings: readonly string[];
}

const REMEDIES: Readonly<Record<OutsideFault, string>> = {
  denied: 'let this credential encrypt and decrypt with the key, and see that the key is enabled',
  unavailable:
    'correct the entry in BUNKMS_OUTSIDE_KEYS_FILE or its credential, or wait until the service is back',
  damaged: 'the key answers with other bytes: see that nothing between rewrites answers',
};

/** `bunkms outside …`: the keys of other services and devices that `BUNKMS_OUTSIDE_KEYS_FILE` names. */
export const addOutsideCommands: AddCommands = (program, environment) => {
  const group = program
    .command('outside')
    .description('keys of other services and devices, named in BUNKMS_OUTSIDE_KEYS_FILE');
  command(group, 'list', 'the entries of the file; asks no provider').action((options) => {
    const keys = Array.from(entriesOf(environment), ([name, entry]) => ({
      name,
      kind: entry.kind,
      place: placeOfEntry(entry),
    }));
    const table = new Table<(typeof keys)[number]>([
      { head: 'NAME', cell: ({ name }) => name },
      { head: 'KIND', cell: ({ kind }) => kind },
      { head: 'KEY', cell: ({ place }) => place },
    ]);
    print(options, { keys }, () => (keys.length === 0 ? ['the file has no entry'] : table.lines(keys)));
  });
  command(group, 'check', 'wraps and unwraps random bytes with each key; exit code 1 when one fails')
    .argument('[name...]', 'entries of the file; all when none is given')
    .action(async (names, options) => {
      const entries = chosenFrom(entriesOf(environment), names);
      const keys = await Promise.all(Array.from(entries, ([name, entry]) => checkKey(name, entry)));
      print(options, { keys }, () => (keys.length === 0 ? ['the file has no entry'] : keys.flatMap(linesOf)));
      if (keys.some(({ works }) => !works)) throw new CliFailure('');
    });
  addCustomerKeyCommands(group, environment);
};

function entriesOf(environment: Environment): OutsideEntries {
  const { outsideKeysFile } = readConfig(environment);
  if (outsideKeysFile === undefined)
    throw new CliFailure('BUNKMS_OUTSIDE_KEYS_FILE is not set: there are no outside keys', EXIT.usage);
  return readEntries(outsideKeysFile);
}

function chosenFrom(entries: OutsideEntries, names: readonly string[]): OutsideEntries {
  if (names.length === 0) return entries;
  const chosen = new Map<string, OutsideEntry>();
  for (const name of names) {
    const entry = entries.get(name);
    if (entry === undefined)
      throw new CliFailure(`no entry has the name ${suggestFor(name, [...entries.keys()])}`, EXIT.notFound);
    chosen.set(name, entry);
  }
  return chosen;
}

async function checkKey(name: string, entry: OutsideEntry): Promise<CheckedKey> {
  const { kind } = entry;
  const warnings = openFilesOf(entry).map(
    ({ member, path }) =>
      `${member}: ${path} is open to its group or to others: run "chmod 600 ${path}", and renew the secret`,
  );
  try {
    await using key = await openPrepared(name, entry);
    // The first call also loads code and connects, which may take longer than a call may.
    await key.check().catch(() => key.check());
    const begunMs = performance.now();
    await key.check();
    const latency_ms = Math.round(performance.now() - begunMs);
    return { name, kind, works: true, latency_ms, warnings };
  } catch (error) {
    const known = error instanceof OutsideKeyError ? error : undefined;
    const fault = known?.fault ?? 'unavailable';
    const remedy = known?.remedy ?? REMEDIES[fault];
    return { name, kind, works: false, fault, cause: formatCauses(error), remedy, warnings };
  }
}

function linesOf({ name, works, latency_ms, fault, cause, remedy, warnings }: CheckedKey): string[] {
  const result = works
    ? `works; a wrap and an unwrap take ${latency_ms} ms`
    : `${fault}: ${cause}; ${remedy}`;
  return [result, ...warnings].map((line) => `${name}: ${line}`);
}

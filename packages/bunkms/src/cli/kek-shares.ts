import { existsSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, command, wholeNumber } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { readText } from '@bundoc/shared/cli/read-text';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import { splitDraft } from '../kek/split-record.ts';
import { CLI_CALLER } from '../records/caller.ts';
import {
  combineShares,
  type KekShare,
  type NamedShare,
  readShare,
  SHARE_TEXT,
  SHARES_MAX,
  splitRing,
} from '../recovery/kek-shares.ts';
import { writeShareText } from '../recovery/share-text.ts';
import { ringText } from '../vault/kek-provider.ts';
import { Vault } from '../vault/vault.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';
import { loadKeks, withKeys } from './open-kms.ts';

interface SplitOptions extends JsonOption {
  readonly shares: number;
  readonly threshold: number;
  readonly to: string;
}

/** `bunkms kek split` and `combine`: all KEKs of the ring on paper, for several safes. */
export function addKekShareCommands(group: Command, environment: Environment): void {
  command(
    group,
    'split',
    'splits all KEKs of the ring into shares for safes; some of them give the KEKs back',
  )
    .requiredOption(
      '--shares <count>',
      `how many, each in a file: 2 to ${SHARES_MAX}`,
      wholeNumber(2, SHARES_MAX),
    )
    .requiredOption(
      '--threshold <count>',
      'how many of them give the KEKs: 2 to all',
      wholeNumber(2, SHARES_MAX),
    )
    .option('--to <folder>', 'for the files', '.')
    .action((options) => kekSplit(environment, options));
  command(group, 'combine', 'makes a KEK file of enough shares; needs no store and no settings')
    .argument('<files...>', 'shares of one split')
    .requiredOption('--to <file>', 'the new KEK file')
    .action(kekCombine);
}

async function kekSplit(environment: Environment, options: SplitOptions): Promise<void> {
  const { shares: count, threshold } = options;
  if (threshold > count) throw new UsageError(`--threshold may be ${count} at most, the number of shares`);
  const folder = resolve(options.to);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === false)
    throw new UsageError(`--to names a folder, and ${folder} is a file`);
  const { split, kekIds, files } = await withKeys(environment, async (deps) => {
    await deps.keks.reload();
    const { current } = await deps.keks.refresh();
    const keks = await loadKeks(readConfig(environment));
    const ids = new Vault(keks).kekIds;
    if (!ids.includes(current))
      throw new CliFailure('the ring has changed meanwhile: repeat the command', EXIT.conflict);
    const shares = await splitRing(keks, { shares: count, threshold, current });
    const first = shares[0] as KekShare;
    // Before a share leaves this process.
    await deps.audit.append(splitDraft(deps, CLI_CALLER, first, ids));
    try {
      return { split: first, kekIds: ids, files: await writeShares(folder, shares, threshold, ids) };
    } catch (error) {
      await deps.audit.record(splitDraft(deps, CLI_CALLER, first, ids, 'failed'));
      throw error;
    }
  });
  const { id, current } = split;
  print(options, { split: id, shares: count, threshold, keks: kekIds, current, files }, () => [
    ...files,
    `each has a share of ${counted(kekIds.length, 'KEK')}: ${kekIds.join(', ')}; current: ${current}`,
    `any ${threshold} of them give the KEKs: give each to another keeper, then delete the files here`,
  ]);
}

/**
 * Writes a file for each share, reads them back, and combines them.
 *
 * @throws CliFailure when a file exists, or they do not give the ring. Then the files are removed.
 */
async function writeShares(
  folder: string,
  shares: readonly KekShare[],
  threshold: number,
  kekIds: readonly string[],
): Promise<string[]> {
  const written: string[] = [];
  try {
    for (const share of shares) {
      const path = join(folder, `kek-share-${share.id}-${share.index}-of-${share.shares}.txt`);
      written.push(path);
      if (await createPrivateFile(path, writeShareText(share.bytes, remarksOf(share)))) continue;
      written.pop();
      throw alreadyThere(path);
    }
    await examine(written, threshold, kekIds);
    return written;
  } catch (error) {
    for (const path of written) await rm(path, { force: true });
    throw error;
  }
}

/** Combines what was written, as often as it takes to have used every file. */
async function examine(
  paths: readonly string[],
  threshold: number,
  kekIds: readonly string[],
): Promise<void> {
  const read = await readShares(paths);
  for (let from = 0; from + threshold <= read.length; from++) {
    const keks = await combineShares(read.slice(from, from + threshold));
    if (new Vault(keks).kekIds.join() !== kekIds.join())
      throw new CliFailure('the shares do not give the ring');
  }
}

function remarksOf({ index, shares, threshold, id, keks, current }: KekShare): string[] {
  return [
    `Share ${index} of ${shares} of the keys (KEKs) of a BunKMS; any ${threshold} of them open everything.`,
    `Split ${id}, ${counted(keks, 'KEK')}; current: ${current}`,
    'Keep it secret, apart from the other shares and from backups.',
    'To use it: bunkms kek combine <files of the shares> --to <new KEK file>',
    'When you type it, leave out these lines. The last group of a line is its checksum.',
  ];
}

async function kekCombine(
  paths: readonly string[],
  { to, ...options }: JsonOption & { readonly to: string },
): Promise<void> {
  const file = resolve(to);
  if (existsSync(file)) throw alreadyThere(file);
  const given = await readShares(paths);
  const keks = await combineShares(given);
  const { id, current } = (given[0] as NamedShare).share;
  const text = ringText(keks);
  try {
    if (!(await createPrivateFile(file, text))) throw alreadyThere(file);
  } finally {
    text.fill(0);
  }
  const ids = new Vault(keks).kekIds;
  print(options, { file, split: id, keks: ids, current }, () => [
    `${file} has ${counted(ids.length, 'KEK')}: ${ids.join(', ')}; current at the split: ${current}`,
    'use it as BUNKMS_KEK_FILE, such as for "bunkms restore <backup>"',
  ]);
}

function alreadyThere(path: string): CliFailure {
  return new CliFailure(`${path} exists already: name another one`, EXIT.conflict);
}

async function readShares(paths: readonly string[]): Promise<NamedShare[]> {
  const read: NamedShare[] = [];
  for (const name of paths) read.push({ name, share: readShare(name, await readText(name, SHARE_TEXT)) });
  return read;
}

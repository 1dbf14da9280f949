import { readFileSync } from 'node:fs';
import { type AddCommands, command, each } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import type { Environment } from '@bundoc/shared/process/config';
import { type BunkmsConfig, readConfig } from '../config.ts';
import { readEntries } from '../outside/entries.ts';
import { askSlots, RingSealed } from '../vault/open-ring.ts';
import { parseSealedRing } from '../vault/sealed-ring.ts';
import { Vault } from '../vault/vault.ts';
import { areOnlyBunkms, ONLY_BUNKMS } from './doctor-seal.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';
import { rotateToLast } from './kek.ts';
import { hasStore } from './open-kms.ts';
import { commandKeys } from './outside.ts';
import { newKek, type RingContent, RingFile } from './ring-file.ts';

/**
 * `bunkms seal …`: seals the ring of KEKs by outside keys. Each command may be cut short and repeated: it
 * goes on where the other one ended.
 */
export const addSealCommands: AddCommands = (program, environment) => {
  const group = program.command('seal').description('seals the KEK ring by outside keys, each in a slot');
  command(group, 'status', 'asks each slot; exit code 1 when none opens the ring').action((options) =>
    sealStatus(readConfig(environment), options),
  );
  command(group, 'migrate', 'seals the ring by these outside keys, and rotates to a new KEK')
    .option(
      '--slot <name>',
      'an entry of BUNKMS_OUTSIDE_KEYS_FILE; may be repeated',
      each((name: string) => name),
      [],
    )
    .option('--to <file>', '"file": back to a plain ring, without any seal')
    .action(async ({ slot, to, ...options }) => {
      if ((to === undefined) === (slot.length === 0))
        throw new UsageError('give --slot <name>, or --to file');
      if (to !== undefined && to !== 'file') throw new UsageError('--to knows "file" only');
      await (to === undefined
        ? sealBy(environment, [...new Set(slot)], options)
        : unseal(environment, options));
    });
  command(group, 'add', 'adds a slot, so that one more outside key opens the ring')
    .argument('<name>', 'an entry of BUNKMS_OUTSIDE_KEYS_FILE')
    .action((name, options) => addSlot(environment, name, options));
  command(group, 'remove', 'removes a slot, and rotates to a new KEK')
    .argument('<name>', 'a slot')
    .action((name, options) => removeSlot(environment, name, options));
};

async function sealStatus(config: BunkmsConfig, options: JsonOption): Promise<void> {
  const file = new RingFile(config);
  const content = await file.read().catch((error: unknown) => {
    if (error instanceof RingSealed) return undefined;
    throw error;
  });
  const ring = parseSealedRing(readFileSync(file.path));
  await using outside = commandKeys(config.outsideKeysFile);
  const slots = ring === undefined ? [] : await askSlots(ring, outside.find);
  const keks = content === undefined ? undefined : new Vault(content.keks).kekIds;
  print(options, { sealed: ring !== undefined, slots, keks }, () => [
    ring === undefined
      ? 'the ring is plain: its file alone gives the KEKs'
      : `sealed, ${counted(slots.length, 'slot')}`,
    ...slots.map(
      (slot) =>
        `${slot.name}: ${slot.state}${'cause' in slot && slot.cause !== undefined ? ` (${slot.cause})` : ''}`,
    ),
    ...(keks === undefined ? [] : [`KEKs: ${keks.join(', ')}`]),
  ]);
  if (content === undefined) throw new CliFailure('no slot opens the ring', EXIT.failure);
}

/** Seals the ring by these slots alone, under a new KEK: a former file opens what the former KEKs wrap. */
async function sealBy(
  environment: Environment,
  slots: readonly string[],
  options: JsonOption,
): Promise<void> {
  const file = new RingFile(readConfig(environment));
  const before = await file.read();
  if (!isSame(before.slots, slots)) await file.write({ keks: [...before.keks, newKek()], slots });
  await finish(environment, options);
}

async function unseal(environment: Environment, options: JsonOption): Promise<void> {
  const file = new RingFile(readConfig(environment));
  const { keks, slots } = await file.read();
  if (slots.length > 0) await file.write({ keks, slots: [] });
  print(options, { sealed: false, slots: [] }, () => [
    'the ring is plain now: keep its file as you keep the KEK, apart from the store and its backups',
  ]);
}

async function addSlot(environment: Environment, name: string, options: JsonOption): Promise<void> {
  const { file, content } = await readSealed(environment);
  const slots = [...new Set([...content.slots, name])];
  if (!isSame(slots, content.slots)) await file.write({ keks: content.keks, slots });
  print(options, { sealed: true, slots }, () => [
    `sealed, ${counted(slots.length, 'slot')}: ${slots.join(', ')}`,
    ...remarksOn(slots, readConfig(environment)),
  ]);
}

async function removeSlot(environment: Environment, name: string, options: JsonOption): Promise<void> {
  const { file, content } = await readSealed(environment);
  const slots = content.slots.filter((slot) => slot !== name);
  if (slots.length === 0)
    throw new CliFailure(
      'it is the only slot: add another one first, or go back to a plain ring with "bunkms seal migrate --to file"',
      EXIT.conflict,
    );
  // A repetition finds the slot gone, and the rotation perhaps not done.
  if (slots.length < content.slots.length) await file.write({ keks: [...content.keks, newKek()], slots });
  await finish(environment, options);
}

async function readSealed(
  environment: Environment,
): Promise<{ readonly file: RingFile; readonly content: RingContent }> {
  const file = new RingFile(readConfig(environment));
  const content = await file.read();
  if (content.slots.length === 0)
    throw new CliFailure(
      'the ring is plain: seal it with "bunkms seal migrate --slot <name>"',
      EXIT.conflict,
    );
  return { file, content };
}

/** Rotates to the newest KEK of the ring, and says until when former ring files open everything. */
async function finish(environment: Environment, options: JsonOption): Promise<void> {
  const config = readConfig(environment);
  const { slots } = await new RingFile(config).read();
  const status = (await hasStore(config)) ? await rotateToLast(environment) : undefined;
  const former = status?.keks.filter(({ id, state }) => id !== status.current && state !== 'retired') ?? [];
  const ids = former.map(({ id }) => id);
  print(options, { sealed: true, slots, current: status?.current, former: ids }, () => [
    `sealed, ${counted(slots.length, 'slot')}: ${slots.join(', ')}`,
    ...remarksOn(slots, config),
    ...(ids.length === 0
      ? []
      : [`former ring files still open what these KEKs wrap, until "bunkms kek retire": ${ids.join(', ')}`]),
  ]);
}

/** What an operator should know of these slots. */
function remarksOn(slots: readonly string[], { outsideKeysFile }: BunkmsConfig): string[] {
  const remarks: string[] = [];
  if (slots.length === 1)
    remarks.push('a second slot would open the ring if this one is lost: "bunkms seal add <name>"');
  if (outsideKeysFile !== undefined && areOnlyBunkms(slots, readEntries(outsideKeysFile)))
    remarks.push(`${ONLY_BUNKMS.found}; ${ONLY_BUNKMS.remedy}`);
  return remarks;
}

function isSame(some: readonly string[], others: readonly string[]): boolean {
  return some.length === others.length && others.every((name) => some.includes(name));
}

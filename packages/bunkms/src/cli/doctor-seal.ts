import { readFileSync, realpathSync } from 'node:fs';
import type { Checkup } from '@bundoc/shared/cli/checkup';
import { counted } from '@bundoc/shared/cli/counted';
import { leftoversOf } from '@bundoc/shared/files/private-file';
import type { BunkmsConfig } from '../config.ts';
import { type OutsideEntries, readEntries } from '../outside/entries.ts';
import { isSealedRing, parseSealedRing } from '../vault/sealed-ring.ts';
import type { CliKms } from './open-kms.ts';
import { openFilesOf } from './secret-files.ts';

/** Why a ring that only other BunKMS seal needs care, and what to do. */
export const ONLY_BUNKMS = {
  found: 'each slot is a key of another BunKMS: if a key of this one seals its ring, neither can start first',
  remedy: 'add a slot of another kind, or one whose entry is kept in a safe alone',
} as const;

/** Whether every slot has an entry here that is a key of another BunKMS. */
export function areOnlyBunkms(slots: readonly string[], entries: OutsideEntries): boolean {
  return slots.length > 0 && slots.every((name) => entries.get(name)?.kind === 'bunkms');
}

/** Checks the file of outside keys, and who may read the credentials that it names. */
export async function checkOutside(checkup: Checkup, { outsideKeysFile }: BunkmsConfig): Promise<void> {
  if (outsideKeysFile === undefined) return;
  await checkup.try('outside keys', 'correct BUNKMS_OUTSIDE_KEYS_FILE', () => {
    const entries = readEntries(outsideKeysFile);
    checkup.ok(
      'outside keys',
      `${counted(entries.size, 'entry', 'entries')}; "bunkms outside check" asks them, and "bunkms outside status" has the last error of each key`,
    );
    for (const [name, entry] of entries)
      for (const { member, path, mode } of openFilesOf(entry))
        checkup.warn(
          'outside keys',
          `others may read ${path}, ${member} of ${name} (mode ${mode})`,
          `run "chmod 600 ${path}", and renew the secret`,
        );
  });
}

/** Warns of a ring in a file that is easily lost, or lies about in a copy. */
export async function checkSeal(checkup: Checkup, { kek, outsideKeysFile }: BunkmsConfig): Promise<void> {
  if (kek.kind !== 'file') return;
  await checkup.try('kek file', 'let this user list the folder of BUNKMS_KEK_FILE', async () => {
    const leftovers = await leftoversOf(realpathSync(kek.path));
    if (leftovers.length > 0)
      checkup.warn(
        'kek file',
        `a command that wrote the ring was killed, and left KEKs in ${leftovers.join(', ')}`,
        'delete it, unless such a command runs now',
      );
  });
  const ring = parseSealedRing(readFileSync(kek.path));
  if (ring === undefined) return;
  const slots = ring.slots.map(({ name }) => name);
  const found = `the ring is sealed by ${slots.join(', ')}`;
  if (slots.length > 1) checkup.ok('seal', found);
  else
    checkup.warn(
      'seal',
      `${found} alone: without that key, everything is lost`,
      'keep the KEKs in safes by "bunkms kek split", or add a slot by "bunkms seal add <name>"',
    );
  await checkup.try('seal', 'correct BUNKMS_OUTSIDE_KEYS_FILE', () => {
    if (outsideKeysFile !== undefined && areOnlyBunkms(slots, readEntries(outsideKeysFile)))
      checkup.warn('seal', ONLY_BUNKMS.found, ONLY_BUNKMS.remedy);
  });
}

/** Warns of KEKs that were in a former file of a sealed ring: that file opens what they wrap. */
export async function checkFormer(
  checkup: Checkup,
  { vault, keks }: CliKms,
  { kek }: BunkmsConfig,
): Promise<void> {
  if (kek.kind !== 'file' || !isSealedRing(readFileSync(kek.path))) return;
  const { current, keks: known } = await keks.refresh();
  const standingOf = (id: string) => known.get(id)?.standing ?? 'staged';
  const staged = vault.kekIds.filter((id) => standingOf(id) === 'staged');
  if (staged.length > 0)
    checkup.warn(
      'seal',
      `no rotation to ${staged.join(', ')} yet: until then, former ring files may open everything`,
      'repeat the "bunkms seal" command that was cut short, or run "bunkms kek rotate"',
    );
  const former = vault.kekIds.filter((id) => id !== current && standingOf(id) === 'previous');
  if (former.length > 0)
    checkup.warn(
      'seal',
      `former ring files may open what these KEKs wrap: ${former.join(', ')}`,
      'retire them by "bunkms kek retire", and destroy the files and backups that need them',
    );
}

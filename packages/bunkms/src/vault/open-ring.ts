import type { KeyObject } from 'node:crypto';
import { OpenError } from '@bundoc/shared/crypto/aead';
import { ConfigError } from '@bundoc/shared/process/config';
import {
  describeOutsideError,
  type OutsideFault,
  type OutsideKey,
  OutsideKeyError,
} from '../outside/port.ts';
import { openSealedRing, parseSealedRing, type SealedRing, type Slot } from './sealed-ring.ts';

/** Finds an outside key by its name. @returns undefined when no entry has it. */
export type FindOutsideKey = (name: string) => Promise<OutsideKey | undefined>;

/** Why a slot did not open the ring. A slot without an entry here is offline: it is not asked. */
export interface ClosedSlot {
  readonly name: string;
  readonly state: 'offline' | OutsideFault;
  readonly cause?: string;
}

/** What a slot answers now. */
export type SlotState = ClosedSlot | { readonly name: string; readonly state: 'opens' };

export const SLOT_STATES = [
  'opens',
  'offline',
  'denied',
  'unavailable',
  'damaged',
] as const satisfies SlotState['state'][];

/** A sealed ring that no slot opens now. Its message names each slot and its cause. */
export class RingSealed extends Error {
  override readonly name = 'RingSealed';
  readonly slots: readonly ClosedSlot[];

  constructor(slots: readonly ClosedSlot[]) {
    const causes = slots.map(
      ({ name, state, cause }) => `${name} is ${state}${cause === undefined ? '' : ` (${cause})`}`,
    );
    super(`no slot opens the sealed ring: ${causes.join('; ')}`);
    this.slots = slots;
  }

  /** Without causes, which name places of the network. */
  get publicMessage(): string {
    return `no slot opens the sealed ring: ${this.slots.map(({ name, state }) => `${name} is ${state}`).join(', ')}`;
  }
}

export interface OpenedRing {
  readonly ring: SealedRing;
  readonly keks: readonly KeyObject[];
  /** The first slot that opened it. */
  readonly slot: string;
}

/**
 * Opens a sealed ring by the first of its slots that does: all are asked at once, so that one that is away
 * delays nothing.
 *
 * @throws ConfigError for bytes that are no ring. RingSealed when no slot opens it.
 */
export async function openThroughSlots(bytes: Buffer, find: FindOutsideKey): Promise<OpenedRing> {
  const ring = sealedRingOf(bytes);
  const closed: ClosedSlot[] = [];
  const tries = ring.slots.map(async (slot) => {
    const opened = await openThrough(ring, slot, find);
    if ('keks' in opened) return { ring, keks: opened.keks, slot: slot.name };
    closed.push(opened);
    throw new OpenError();
  });
  try {
    return await Promise.any(tries);
  } catch (error) {
    if (!(error instanceof AggregateError)) throw error;
    throw new RingSealed(
      ring.slots.map((slot) => closed.find(({ name }) => name === slot.name) as ClosedSlot),
    );
  }
}

/** @throws ConfigError for bytes that are no ring. */
export function sealedRingOf(bytes: Buffer): SealedRing {
  const ring = parseSealedRing(bytes);
  if (ring === undefined) throw new ConfigError(['BUNKMS_KEK_FILE: the sealed ring is damaged']);
  return ring;
}

/** Asks all slots of a sealed ring at once, in its order. */
export function askSlots(ring: SealedRing, find: FindOutsideKey): Promise<SlotState[]> {
  return Promise.all(
    ring.slots.map(async (slot) => {
      const opened = await openThrough(ring, slot, find);
      return 'keks' in opened ? { name: slot.name, state: 'opens' as const } : opened;
    }),
  );
}

/** Opens a sealed ring by one slot. */
export async function openThrough(
  ring: SealedRing,
  { name, blob }: Slot,
  find: FindOutsideKey,
): Promise<{ readonly keks: readonly KeyObject[] } | ClosedSlot> {
  try {
    const key = await find(name);
    if (key === undefined) return { name, state: 'offline' };
    return { keks: openSealedRing(ring, await key.unwrap(blob)) };
  } catch (error) {
    const state = error instanceof OutsideKeyError ? error.fault : 'damaged';
    return { name, state, cause: describeOutsideError(error) };
  }
}

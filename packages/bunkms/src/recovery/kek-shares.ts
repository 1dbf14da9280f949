import assert from 'node:assert/strict';
import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import { combine, split } from 'shamir-secret-sharing';
import { KEK_ID_BYTES } from '../records/wrapped-key.ts';
import { RING_LINE_BYTES, ringText, takeKekRing } from '../vault/kek-provider.ts';
import { KEKS_MAX } from '../vault/sealed-ring.ts';
import { DamagedShare, UnfitShares } from './errors.ts';
import { readShareText } from './share-text.ts';

/** Shares of a split. */
export const SHARES_MAX = 16;
/** The longest share as text, bytes: with remarks, and with spaces that a person adds. */
export const SHARE_TEXT = { bytes: 16_384, what: 'KEK share' };

const SPLIT_ID_BYTES = 8;
const HEAD_BYTES = SPLIT_ID_BYTES + 4 + KEK_ID_BYTES;
const CHECK_BYTES = 16;

/** What all shares of a split have in common. */
export interface SplitFacts {
  /** Random, in hex. */
  readonly id: string;
  readonly shares: number;
  /** How many shares give the KEKs. */
  readonly threshold: number;
  /** How many KEKs are inside. */
  readonly keks: number;
  /** The KEK that was current, in hex. */
  readonly current: string;
}

/** A share of all KEKs of a ring (`docs/formats/kek-shares.md`). */
export interface KekShare extends SplitFacts {
  /** From 1 to the number of shares. */
  readonly index: number;
  /** For each byte of the ring one byte, then the place at which they were taken. */
  readonly points: Uint8Array;
  /** All of it. */
  readonly bytes: Buffer;
}

/** A share, and the file that it is from. */
export interface NamedShare {
  readonly name: string;
  readonly share: KekShare;
}

/**
 * Splits the ring by Shamir's secret sharing over GF(2^8): any `threshold` shares give it, and fewer say
 * nothing about it (A. Shamir, How to Share a Secret, 1979).
 *
 * @param threshold from 2 to `shares`, and those to {@link SHARES_MAX}.
 */
export async function splitRing(
  keks: readonly KeyObject[],
  { shares, threshold, current }: Pick<SplitFacts, 'shares' | 'threshold' | 'current'>,
): Promise<KekShare[]> {
  assert(2 <= threshold && threshold <= shares && shares <= SHARES_MAX, 'the threshold fits the shares');
  const ring = ringText(keks);
  // The library takes no Buffer.
  const secret = Uint8Array.from(ring);
  try {
    const id = randomBytes(SPLIT_ID_BYTES);
    const points = await split(secret, shares, threshold);
    return points.map((some, at) => {
      const numbers = Buffer.of(at + 1, shares, threshold, keks.length);
      const content = Buffer.concat([id, numbers, Buffer.from(current, 'hex'), some]);
      return shareOf(Buffer.concat([content, checkOf(ring, content)]));
    });
  } finally {
    ring.fill(0);
    secret.fill(0);
  }
}

/** Reads the text of a share. @param name of its file. @throws DamagedShare naming the line. */
export function readShare(name: string, text: string): KekShare {
  const share = shareOf(readShareText(name, text, lengthOf));
  // At zero is the secret itself.
  if (share.points.at(-1) === 0) throw new DamagedShare(`${name}: this is no share that BunKMS makes`);
  return share;
}

/**
 * The KEKs of a ring, in its order, from shares of one split.
 *
 * @throws UnfitShares for shares of different splits, two copies of one, or too few. DamagedShare when they
 *   do not give the ring that was split; with more shares than needed, it names the one that was changed.
 */
export async function combineShares(given: readonly NamedShare[]): Promise<readonly KeyObject[]> {
  requireOneSplit(given);
  const ring = await ringOf(given);
  if (ring === undefined) throw new DamagedShare(await changedIn(given));
  return takeKekRing('the ring in the shares', ring);
}

function requireOneSplit(given: readonly NamedShare[]): void {
  const [first] = given;
  assert(first !== undefined, 'there is a share');
  for (const [at, { name, share }] of given.entries()) {
    if (splitOf(share) !== splitOf(first.share))
      throw new UnfitShares(
        `${name} is of another split than ${first.name}: ${splitOf(share)}, not ${splitOf(first.share)}`,
      );
    const twin = given
      .slice(0, at)
      .find(({ share: { index, points } }) => index === share.index || points.at(-1) === share.points.at(-1));
    if (twin !== undefined) throw new UnfitShares(`${name} is the same share as ${twin.name}`);
  }
  const { threshold, shares } = first.share;
  const lacking = threshold - given.length;
  if (lacking > 0)
    throw new UnfitShares(`give ${lacking} more: ${threshold} of the ${shares} shares are needed`);
}

function splitOf({ id, shares, threshold, keks, current }: SplitFacts): string {
  return `split ${id}, ${threshold} of ${shares}, ${keks} with the current KEK ${current}`;
}

/** The text of the ring, which the caller wipes; undefined unless the check value of every share holds. */
async function ringOf(given: readonly NamedShare[]): Promise<Buffer | undefined> {
  const secret = await combine(given.map(({ share }) => share.points));
  const ring = Buffer.from(secret.buffer);
  const isWhole = given.every(({ share: { bytes } }) =>
    timingSafeEqual(checkOf(ring, bytes.subarray(0, -CHECK_BYTES)), bytes.subarray(-CHECK_BYTES)),
  );
  if (isWhole) return ring;
  ring.fill(0);
  return undefined;
}

/** Which share was changed. Only a further one tells it. */
async function changedIn(given: readonly NamedShare[]): Promise<string> {
  if (given.length > (given[0]?.share.threshold ?? 0))
    for (const one of given) {
      const ring = await ringOf(given.filter((other) => other !== one));
      ring?.fill(0);
      if (ring !== undefined) return `${one.name} was changed: the other shares give the KEKs without it`;
    }
  return 'the check value is wrong: one of these shares was changed. Give a further one to learn which';
}

/**
 * Check value of a share: covers all of it, under the ring as the key. A ring is at least one random key of
 * 32 bytes, so nobody can find it by trying.
 */
function checkOf(ring: Buffer, content: Buffer): Buffer {
  return createHmac('sha256', ring)
    .update('bunkms/kek-share/v1\0')
    .update(content)
    .digest()
    .subarray(0, CHECK_BYTES);
}

/** The length of a share by its first bytes; undefined when they are out of bounds. */
function lengthOf(head: Buffer): number | undefined {
  const [index = 0, shares = 0, threshold = 0, keks = 0] = head.subarray(SPLIT_ID_BYTES);
  const isSound =
    1 <= index &&
    index <= shares &&
    shares <= SHARES_MAX &&
    2 <= threshold &&
    threshold <= shares &&
    1 <= keks &&
    keks <= KEKS_MAX;
  return isSound ? HEAD_BYTES + keks * RING_LINE_BYTES + 1 + CHECK_BYTES : undefined;
}

function shareOf(bytes: Buffer): KekShare {
  const [index = 0, shares = 0, threshold = 0, keks = 0] = bytes.subarray(SPLIT_ID_BYTES);
  return {
    id: bytes.toString('hex', 0, SPLIT_ID_BYTES),
    index,
    shares,
    threshold,
    keks,
    current: bytes.toString('hex', HEAD_BYTES - KEK_ID_BYTES, HEAD_BYTES),
    // A copy, since the library takes no Buffer.
    points: Uint8Array.from(bytes.subarray(HEAD_BYTES, -CHECK_BYTES)),
    bytes,
  };
}

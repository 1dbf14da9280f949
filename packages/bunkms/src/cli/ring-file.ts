import { type KeyObject, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { chmod, chown, rm } from 'node:fs/promises';
import { KEY_BYTES, takeKey } from '@bundoc/shared/crypto/aead';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { leftoversOf, publishPrivateFile } from '@bundoc/shared/files/private-file';
import type { BunkmsConfig } from '../config.ts';
import { describeOutsideError, OutsideKeyError } from '../outside/port.ts';
import { fileKekProvider, ringText } from '../vault/kek-provider.ts';
import { openThrough } from '../vault/open-ring.ts';
import { isSealedRing, KEKS_MAX, parseSealedRing, SLOTS_MAX, sealRing } from '../vault/sealed-ring.ts';
import { CliFailure, EXIT, UsageError } from './errors.ts';
import { commandKeys } from './outside.ts';

/** The KEKs of a ring, and the slots that seal it; none for a plain one. */
export interface RingContent {
  readonly keks: readonly KeyObject[];
  readonly slots: readonly string[];
}

const LINE_FEED = 0x0a;

/**
 * The ring in `BUNKMS_KEK_FILE`, for the commands that write it. Services only read it. A write is atomic,
 * keeps owner and mode, and counts only once the new file was opened by fresh connections to each of its
 * slots.
 */
export class RingFile {
  readonly path: string;
  readonly #config: BunkmsConfig;
  #stamp = '';
  /** The text of a plain ring, with its comments. */
  #plain: Buffer | undefined;

  /** @throws UsageError without `BUNKMS_KEK_FILE`. */
  constructor(config: BunkmsConfig) {
    if (config.kek.kind !== 'file') throw new UsageError('this needs BUNKMS_KEK_FILE: BUNKMS_KEK is no file');
    const { path } = config.kek;
    // A link stays. Else the former ring would stay where it leads.
    this.path = existsSync(path) ? realpathSync(path) : path;
    this.#config = config;
  }

  /** @throws ConfigError without a usable ring. RingSealed when no slot opens it. */
  async read(): Promise<RingContent> {
    await using outside = commandKeys(this.#config.outsideKeysFile);
    this.#stamp = stampOf(this.path);
    const keks = await fileKekProvider(this.path, {
      warn: () => undefined,
      findOutside: outside.find,
    }).load();
    const bytes = readFileSync(this.path);
    const slots = parseSealedRing(bytes)?.slots.map(({ name }) => name) ?? [];
    this.#plain = isSealedRing(bytes) ? undefined : bytes;
    return { keks, slots };
  }

  /**
   * Replaces what {@link read} has read.
   *
   * @throws CliFailure when a provider is away, the result does not open, or the file has changed meanwhile.
   *   Then
   *   the file is as before.
   */
  async write({ keks, slots }: RingContent): Promise<void> {
    if (keks.length > KEKS_MAX)
      throw new CliFailure(
        `a ring has at most ${KEKS_MAX} KEKs: take retired ones out by "bunkms kek remove"`,
        EXIT.conflict,
      );
    if (slots.length > SLOTS_MAX) throw new UsageError(`a ring has at most ${SLOTS_MAX} slots`);
    const bytes = slots.length === 0 ? ringText(keks) : await this.#sealed(keks, slots);
    await this.#publish(bytes, (written) => this.#examine(written, keks));
  }

  /** Adds a KEK. The comments of a plain ring stay. */
  async add(kek: KeyObject, { keks, slots }: RingContent): Promise<void> {
    const all = [...keks, kek];
    if (this.#plain === undefined || all.length > KEKS_MAX) return await this.write({ keks: all, slots });
    const isWhole = this.#plain.at(-1) === LINE_FEED;
    const text = Buffer.concat([this.#plain, Buffer.from(isWhole ? '' : '\n'), ringText([kek])]);
    await this.#publish(text, (written) => this.#examine(written, all));
  }

  async #sealed(keks: readonly KeyObject[], slots: readonly string[]): Promise<Buffer> {
    await using outside = commandKeys(this.#config.outsideKeysFile);
    return await sealRing(keks, slots, async (name, ringKey) => {
      try {
        const key = await outside.find(name);
        if (key === undefined)
          throw new CliFailure(
            `${name} has no entry in BUNKMS_OUTSIDE_KEYS_FILE: ${NEEDS_ALL}`,
            EXIT.notFound,
          );
        return await key.wrap(ringKey);
      } catch (error) {
        if (!(error instanceof OutsideKeyError)) throw error;
        throw new CliFailure(
          `${name} is ${error.fault} (${describeOutsideError(error)}): ${NEEDS_ALL}`,
          EXIT.unavailable,
        );
      }
    });
  }

  async #publish(bytes: Buffer, examine: (written: string) => Promise<void>): Promise<void> {
    const { uid, gid, mode } = statSync(this.path);
    try {
      // A command that was killed may have left all KEKs there, in plain.
      for (const leftover of await leftoversOf(this.path)) await rm(leftover, { force: true });
      await publishPrivateFile(this.path, bytes, async (written) => {
        await examine(written);
        await chmod(written, mode & 0o777);
        // Else a service of another user could not read what an operator has written.
        if (uid !== process.getuid?.() || gid !== process.getgid?.()) await chown(written, uid, gid);
        if (stampOf(this.path) !== this.#stamp)
          throw new CliFailure('the ring has changed meanwhile: repeat the command', EXIT.conflict);
      });
    } finally {
      bytes.fill(0);
      this.#plain?.fill(0);
    }
  }

  /** Opens what was written: by each slot, through connections of its own. */
  async #examine(path: string, keks: readonly KeyObject[]): Promise<void> {
    const ring = parseSealedRing(readFileSync(path));
    await using outside = commandKeys(this.#config.outsideKeysFile);
    if (ring === undefined) {
      const read = await fileKekProvider(path, { warn: () => undefined }).load();
      return requireSame(read, keks, 'the file');
    }
    for (const slot of ring.slots) {
      const opened = await openThrough(ring, slot, outside.find);
      if (!('keks' in opened))
        throw new CliFailure(
          `the slot ${slot.name} does not open what was written (${opened.cause}): nothing was changed`,
          EXIT.unavailable,
        );
      requireSame(opened.keks, keks, `the slot ${slot.name}`);
    }
  }
}

const NEEDS_ALL = 'each write of the ring needs the keys of all its slots; nothing was changed';

function requireSame(read: readonly KeyObject[], keks: readonly KeyObject[], what: string): void {
  const isSame = read.length === keks.length && read.every((kek, at) => kek.equals(keks[at] as KeyObject));
  if (!isSame) throw new CliFailure(`${what} opens to other KEKs than were written: nothing was changed`);
}

export function newKek(): KeyObject {
  return takeKey(randomBytes(KEY_BYTES));
}

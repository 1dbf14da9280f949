import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { BoundedKey } from '../../src/outside/bounded-key.ts';
import {
  BLOB_BYTES_MAX,
  type OutsideFault,
  OutsideKeyError,
  type OutsideProvider,
} from '../../src/outside/port.ts';

/** A key at a provider that tests control. */
export interface KeyForTests extends AsyncDisposable {
  readonly kind: string;
  /** A new provider for the key. */
  readonly open: () => OutsideProvider | Promise<OutsideProvider>;
  /** The same for another key of the same service. */
  readonly openOther: () => OutsideProvider | Promise<OutsideProvider>;
  /** Its holder forbids the use of the key, and allows it again. */
  readonly deny: () => Promise<void>;
  readonly allow: () => Promise<void>;
  /** Our own credential no longer works; undefined when there is none that could end. */
  readonly endCredential?: () => Promise<void>;
}

/** The fault of a call that must fail. */
export async function faultOf(call: Promise<unknown>): Promise<OutsideFault | undefined> {
  return await call.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof OutsideKeyError) return error.fault;
      throw error;
    },
  );
}

/** What every provider guarantees, against the real part or one that answers as it does. */
export function conformsToPort(title: string, start: () => Promise<KeyForTests>): void {
  const opened = async (held: KeyForTests) => new BoundedKey('held', held.kind, await held.open());

  describe(`an outside key of ${title}`, () => {
    it('unwraps what it wraps, through another connection too, and wraps differently each time', async () => {
      await using held = await start();
      await using key = await opened(held);
      await using later = await opened(held);
      expect(later.identity).toBe(key.identity);
      for (const bytes of [32, 48, 64]) {
        const secret = randomBytes(bytes);
        const blobs = [await key.wrap(secret), await key.wrap(secret)];
        expect(blobs[0]).not.toEqual(blobs[1]);
        for (const blob of blobs) {
          expect(blob.length).toBeLessThanOrEqual(BLOB_BYTES_MAX);
          expect(blob.includes(secret)).toBe(false);
          expect(await later.unwrap(blob)).toEqual(secret);
        }
      }
      await key.check();
    });

    it('opens no changed, cut or foreign bytes, and says that they are damaged', async () => {
      await using held = await start();
      await using key = await opened(held);
      await using other = new BoundedKey('other', held.kind, await held.openOther());
      expect(other.identity).not.toBe(key.identity);
      const blob = await key.wrap(randomBytes(32));
      const changed = Buffer.from(blob);
      // Inside of what is sealed, wherever its header ends.
      const at = blob.length - 10;
      changed[at] = changed[at] === 0x41 ? 0x42 : 0x41;
      expect(await faultOf(key.unwrap(changed))).toBe('damaged');
      expect(await faultOf(key.unwrap(blob.subarray(0, blob.length - 12)))).toBe('damaged');
      expect(await faultOf(other.unwrap(blob))).toBe('damaged');
      expect(await key.unwrap(blob)).toHaveLength(32);
    });

    it('says denied while its holder forbids it, and works again when he allows it', async () => {
      await using held = await start();
      await using key = await opened(held);
      const blob = await key.wrap(randomBytes(32));
      await held.deny();
      expect(await faultOf(key.unwrap(blob))).toBe('denied');
      expect(await faultOf(key.wrap(randomBytes(32)))).toBe('denied');
      await held.allow();
      expect(await key.unwrap(blob)).toHaveLength(32);
    });

    it('says unavailable, not denied, when our own credential does not work', async ({ skip }) => {
      await using held = await start();
      if (held.endCredential === undefined) skip('it has none that could end');
      await using key = await opened(held);
      const blob = await key.wrap(randomBytes(32));
      await held.endCredential?.();
      expect(await faultOf(key.unwrap(blob))).toBe('unavailable');
      await held.deny();
      expect(await faultOf(key.unwrap(blob))).toBe('unavailable');
    });
  });
}

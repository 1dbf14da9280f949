import { createSecretKey, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Vault } from '../vault/vault.ts';
import { DamagedFile, MissingKek } from './errors.ts';
import { formatInventory, type Inventory, parseInventory } from './inventory.ts';

const vault = new Vault([createSecretKey(randomBytes(32))]);
const inventory: Inventory = {
  created_at: '2026-01-01T00:00:00.000Z',
  kid: 'kid',
  audit: { seq: 42, hash: 'ab'.repeat(32) },
  keys: [
    {
      name: 'a-dek',
      id: '7c9e6679-7425-40de-944b-e07fc1f90ae7',
      type: 'aes-256',
      state: 'destroyed',
      version: 3,
      destroyed_versions: [],
      revision: 7,
      exportable: true,
      rotate_after_days: 30,
      deletion_at: null,
      created_at: '2026-01-01T00:00:00.000Z',
      destroyed_at: '2026-01-02T00:00:00.000Z',
      kek_ids: ['0011223344556677'],
      holder: null,
      offer: null,
      intended_at: '2026-01-01T12:00:00.000Z',
    },
  ],
  damaged: ['b-dek'],
  tokens: [],
};

describe('an inventory', () => {
  it('is read unchanged, with only the KEK', () => {
    const file = formatInventory(vault, inventory);
    expect(parseInventory(vault, file)).toEqual(inventory);
    expect(parseInventory(vault, Buffer.from(JSON.stringify(JSON.parse(file.toString()), null, 2)))).toEqual(
      inventory,
    );
  });

  it('with any byte changed or removed is refused', () => {
    const file = formatInventory(vault, inventory);
    // The final line feed is not authenticated.
    for (let at = 0; at < file.length - 1; at++) {
      const changed = Buffer.from(file);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 7));
      expect(() => parseInventory(vault, changed), `byte ${at}: ${changed}`).toThrow();
      expect(() => parseInventory(vault, file.subarray(0, at))).toThrow(DamagedFile);
    }
  });

  it('with the content, key or tag of another one is refused', () => {
    const [one, other] = [
      formatInventory(vault, inventory),
      formatInventory(vault, { ...inventory, damaged: [] }),
    ].map((file) => JSON.parse(file.toString()));
    for (const member of ['key_wrapped', 'mac', 'inventory'])
      expect(() =>
        parseInventory(vault, Buffer.from(JSON.stringify({ ...one, [member]: other[member] }))),
      ).toThrow(/was changed/);
    expect(() => parseInventory(vault, Buffer.from(JSON.stringify({ ...one, more: 1 })))).toThrow(
      DamagedFile,
    );
  });

  it('made under another KEK is distinguished from a damaged one', () => {
    const other = new Vault([createSecretKey(randomBytes(32))]);
    expect(() => parseInventory(vault, formatInventory(other, inventory))).toThrow(MissingKek);
  });

  it('of an unknown form is refused, even if authentic', () => {
    const odd = { ...inventory, keys: [{ ...inventory.keys[0], state: 'gone' }] } as unknown as Inventory;
    expect(() => parseInventory(vault, formatInventory(vault, odd))).toThrow(/unknown to this release/);
  });
});

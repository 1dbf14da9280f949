import { randomBytes, randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { decodeExportedKey, type ExportedKeyFacts, encodeExportedKey } from './exported-key.ts';

const FACTS: ExportedKeyFacts = {
  algorithm: 'AES-256-GCM',
  name: 'p-dek',
  key_id: randomUUID(),
  version: 1,
  kcv: '0'.repeat(32),
  wrapped_b64: randomBytes(69).toString('base64'),
  lease: { id: randomUUID(), ttl_ms: 900_000 },
  audit: { seq: 1, hash: 'ab' },
};
const isWiped = (bytes: Buffer) => bytes.every((byte) => byte === 0);

describe('the answer of an export', () => {
  afterEach(() => vi.restoreAllMocks());

  it('is the JSON of the contract, with the key as its first member', () => {
    const dek = randomBytes(32);
    const body = encodeExportedKey(FACTS, dek);
    expect(body.toString()).toBe(JSON.stringify({ key_material_b64: dek.toString('base64'), ...FACTS }));
  });

  it('is read with members in any order and with white space, and is then wiped', () => {
    const dek = randomBytes(32);
    const key_material_b64 = dek.toString('base64');
    for (const text of [
      JSON.stringify({ key_material_b64, ...FACTS }),
      JSON.stringify({ ...FACTS, key_material_b64 }, null, 2),
      JSON.stringify({ later: { key_material_b64: 'x' }, ...FACTS, key_material_b64, and: ['more', {}] }),
    ]) {
      const body = Buffer.from(text);
      const { facts, dek: read } = decodeExportedKey(body);
      expect(facts).toEqual(FACTS);
      expect(read.export()).toEqual(dek);
      expect(isWiped(body)).toBe(true);
    }
  });

  const material = randomBytes(32).toString('base64');
  it.each([
    ['nothing', ''],
    ['no JSON', '{"key_material_b64":'],
    ['no key', JSON.stringify(FACTS)],
    ['a key that is not text', JSON.stringify({ ...FACTS, key_material_b64: 7 })],
    ['a short key', JSON.stringify({ ...FACTS, key_material_b64: 'AAAA' })],
    ['a long key', JSON.stringify({ ...FACTS, key_material_b64: `${material}AAAA` })],
    ['a key in another alphabet', JSON.stringify({ ...FACTS, key_material_b64: `_${material.slice(1)}` })],
    [
      'a key written with an escape',
      JSON.stringify({ ...FACTS, key_material_b64: material }).replace(
        material,
        `\\u0041${material.slice(6)}`,
      ),
    ],
    ['two keys', `{"key_material_b64":"${material}","key_material_b64":"${material}"}`],
    ['a missing fact', JSON.stringify({ ...FACTS, kcv: undefined, key_material_b64: material })],
    ['text behind the key that is not JSON', `${JSON.stringify({ ...FACTS, key_material_b64: material })}}`],
  ])('is refused with %s, is wiped, and the error quotes nothing of it', (_what, text) => {
    const body = Buffer.from(text);
    const read = () => decodeExportedKey(body);
    expect(read).toThrow();
    expect(isWiped(body)).toBe(true);
    expect(() => decodeExportedKey(Buffer.from(text))).not.toThrow(material.slice(6));
  });

  it('is written and read without a string of the key', () => {
    const dek = randomBytes(32);
    const spellings = [dek.toString('base64'), dek.toString('hex'), dek.toString('latin1')];
    const made: string[] = [];
    const inherited = Buffer.prototype.toString;
    vi.spyOn(Buffer.prototype, 'toString').mockImplementation(function (this: Buffer, ...args) {
      const text = inherited.apply(this, args);
      made.push(text);
      return text;
    });
    const { parse, stringify } = JSON;
    vi.spyOn(JSON, 'parse').mockImplementation((text: string) => {
      made.push(text);
      return parse(text);
    });
    vi.spyOn(JSON, 'stringify').mockImplementation((value: unknown) => {
      const text = stringify(value);
      made.push(text);
      return text;
    });
    decodeExportedKey(encodeExportedKey(FACTS, dek));
    expect(made.length).toBeGreaterThan(2);
    expect(made.filter((text) => spellings.some((spelling) => text.includes(spelling)))).toEqual([]);
  });
});

import { createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readStoredMetadata } from '../src/cipher/stored-text.ts';
import { formatProjectFile, openCipher, parseProjectFile } from '../src/project/project-file.ts';

const golden = (name: string) => readFileSync(new URL(`golden/${name}`, import.meta.url));
const expected = JSON.parse(golden('expected-v1.golden.json').toString()) as Record<string, string>;

/** Files that earlier releases wrote. They are never regenerated: a format that changes gets a new version. */
describe('the golden files of format 1', () => {
  const dek = createSecretKey(Buffer.from(String(expected['dekHex']), 'hex'));
  const file = parseProjectFile('golden', golden('project-v1.golden.json'));
  const key = {
    keyId: String(expected['keyId']),
    version: 1,
    kcv: String(expected['kcv']),
    wrapped: file.versions[0]!.wrapped,
    dek,
    requestedAt: { wallMs: 0, monotonicMs: 0 },
    ttlMs: 900_000,
  };
  const ref = { collection: String(expected['collection']), id: String(expected['id']) };

  it('project.json is read, written back the same, and opens to the same name key', () => {
    expect(formatProjectFile(file)).toEqual(golden('project-v1.golden.json'));
    expect(openCipher(file, [key]).fileName(ref)).toBe(expected['fileName']);
  });

  it('a document file opens to the exact text', () => {
    const text = openCipher(file, [key]).openDocument(
      String(expected['fileName']),
      golden('document-v1.golden.bin'),
    );
    expect(text.toString()).toBe(expected['text']);
    expect(readStoredMetadata(text, ref)?._rev).toBe('0123456789abcdef01234567');
  });
});

import { createDecipheriv, createHash, createSecretKey, hkdfSync } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { JOURNAL_FILE, MANIFEST_FILE } from '@bundoc/shared/contract/backup-folder';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { readStoredMetadata } from '../src/crypto/stored-text.ts';
import { readIndexes } from '../src/engine/files/catalog/index-file.ts';
import { formatStorageFile, parseStorageFile } from '../src/engine/identity/storage-file.ts';
import { MemoryIndex } from '../src/engine/indexes/memory-index.ts';
import { formatLost, parseLost } from '../src/engine/lost-projects.ts';
import { MARK_KEY, openMoveMark } from '../src/engine/moves/move-mark.ts';
import type { IndexSpec } from '../src/engine/port/index-port.ts';
import { formatProjectFile, openCipher, parseProjectFile } from '../src/engine/projects/project-file.ts';
import { formatReceipts, parseReceiptsText } from '../src/kms/receipts-text.ts';
import { readBackups, writeManifest } from '../src/operations/backup-manifest.ts';
import { checkBackup, openBackup } from '../src/operations/read-backup.ts';
import { fileInMemory } from '../src/testing/file-in-memory.ts';
import { SimulatedDisk } from '../src/testing/simulated-disk.ts';
import { openTestStore } from '../src/testing/test-engine.ts';
import { readValue } from '../src/values/value.ts';

const golden = (name: string) => readFileSync(new URL(`golden/${name}`, import.meta.url));
const expected = JSON.parse(golden('expected-v1.golden.json').toString()) as Record<string, string>;

/**
 * One of each format. From the first release on they are never regenerated: a changed format gets a new
 * version.
 */
describe('the golden files', () => {
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

  it('include a project.json that is written back unchanged and opens to the same name key', () => {
    expect(formatProjectFile(file)).toEqual(golden('project-v1.golden.json'));
    expect(openCipher(file, [key]).fileName(ref)).toBe(expected['fileName']);
  });

  it('include a storage.json that is written back unchanged', () => {
    const content = golden('storage-v2.golden.json').toString();
    const read = parseStorageFile('storage.json', content);
    expect(read).toMatchObject({
      id: '3c0e2b62-8f5c-4c0e-9a55-0f8f0c9d5a01',
      takenOverMs: 1_767_225_600_000,
    });
    expect(formatStorageFile(read)).toBe(content);
  });

  it('include a manifest of backups that is written back unchanged, and a journal that continues it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bundoc-golden-'));
    try {
      const manifest = golden('manifest-v1.golden.ndjson');
      writeFileSync(join(folder, MANIFEST_FILE), manifest);
      const alone = await readBackups(folder);
      expect(alone).toMatchObject({
        isUnfinished: false,
        failed: [{ project: 'broken', code: 'project_damaged' }],
      });
      writeFileSync(join(folder, JOURNAL_FILE), golden('manifest-v1.golden.journal'));
      const continued = await readBackups(folder);
      expect(continued?.isUnfinished).toBe(true);
      expect([...(continued?.entries.values() ?? [])]).toMatchObject([
        { project: 'acme', bytes: 5_000 },
        { project: 'old', gone: { why: 'deleted' } },
      ]);
      const { endedAt: at = '', failed = [], entries } = alone ?? {};
      await writeManifest(folder, entries?.values() ?? [], { at, failed });
      expect(readFileSync(join(folder, MANIFEST_FILE))).toEqual(manifest);
      expect(existsSync(join(folder, JOURNAL_FILE))).toBe(false);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('include lost projects that are written back unchanged', () => {
    const content = golden('lost-projects-v1.golden.json').toString();
    const projects = parseLost('lost-projects.json', content);
    expect(projects).toEqual(['acme', 'project-b', 'zoo']);
    expect(formatLost(projects.toReversed())).toBe(content);
  });

  it('include receipts of BunKMS that are written back unchanged', () => {
    const content = golden('kms-receipts-v1.golden.json').toString();
    const receipts = parseReceiptsText(content);
    expect(receipts).toMatchObject([
      { installation: '8ea96fbb31a92033', epoch: 0, seq: 41 },
      { installation: 'd8dfb3296832ce3c', epoch: 1_767_225_600_000, seq: 1_207 },
    ]);
    expect(formatReceipts(receipts)).toBe(content);
  });

  it('include a document file that opens to the exact text', () => {
    const text = openCipher(file, [key]).openDocument(
      String(expected['fileName']),
      golden('document-v1.golden.bin'),
    );
    expect(text.toString()).toBe(expected['text']);
    expect(readStoredMetadata(text, ref)?._rev).toBe('0123456789abcdef01234567');
  });

  /**
   * Uses only `docs/formats`, without our code: key, nonce, tag, ciphertext and AAD as the byte tables give
   * them.
   */
  function openByHand(
    info: string,
    salt: Buffer,
    sealed: { nonce: Buffer; text: Buffer; tag: Buffer; aad: Buffer },
  ) {
    const subkey = Buffer.from(hkdfSync('sha256', dek, salt, info, 32));
    const decipher = createDecipheriv('aes-256-gcm', subkey, sealed.nonce);
    decipher.setAAD(sealed.aad).setAuthTag(sealed.tag);
    return Buffer.concat([decipher.update(sealed.text), decipher.final()]);
  }

  const engine = JSON.parse(golden('engine-v2.golden.json').toString()) as {
    texts: string[];
    changes: unknown[];
    usedKeys: { key: string; request: string; answer: unknown }[];
  };

  /** A data folder: a catalog, later parts that were carried from the log, and an empty log. */
  function folderWith(catalog: Buffer): SimulatedDisk {
    const disk = new SimulatedDisk('/', '/log', '/projects', '/projects/golden', '/projects/golden/carried');
    const segment = Buffer.alloc(65_536);
    golden('log-emptied-v3.golden.bin').copy(segment);
    disk.tamper('/log/00000002', segment);
    disk.tamper('/projects/golden/catalog', catalog);
    disk.tamper('/projects/golden/carried/2', golden('project-carried-v2.golden.bin'));
    return disk;
  }

  const openIn = (disk: SimulatedDisk) =>
    openTestStore(
      'golden',
      '/projects/golden',
      disk,
      { file, cipher: openCipher(file, [key]) },
      new FakeClock(),
    );

  it('include a catalog, and later parts of the log, that open to the original state', async () => {
    await using store = await openIn(folderWith(golden('catalog-v2.golden.bin')));
    const { documents } = await store.list({ collection: 'notes', after: 0, limit: 10, bytesMax: 1_000_000 });
    expect(documents.map(({ text }) => text.toString())).toEqual(engine.texts);
    expect((await store.changes(0, 10)).changes).toEqual(engine.changes);
    for (const { key: used, request, answer } of engine.usedKeys)
      expect(await store.commit([], { idempotency: { key: used, request } })).toEqual(answer);
  });

  it('include a catalog whose clear head and first chunk the byte tables alone can decode', () => {
    const bytes = golden('catalog-v2.golden.bin');
    expect(bytes.toString('latin1', 0, 8)).toBe('BUNDOCC2');
    expect(bytes.readUInt32BE(8)).toBe(1);
    const id = bytes.subarray(12, 28);
    // The carried file names the same handle, and the segment of the covered part.
    const carried = golden('project-carried-v2.golden.bin');
    expect(carried.includes(bytes.subarray(28, 36))).toBe(true);
    expect([Number(bytes.readBigUInt64BE(36)), bytes.readUInt32BE(44) > 0]).toEqual([2, true]);
    // The first part after the covered one names its tag.
    expect(carried.includes(bytes.subarray(48, 64))).toBe(true);
    // Two living documents, each of a few bytes and the seal.
    expect([Number(bytes.readBigUInt64BE(64)), Number(bytes.readBigUInt64BE(72))]).toEqual([
      2,
      expect.any(Number),
    ]);
    expect(Number(bytes.readBigUInt64BE(72))).toBeGreaterThan(200);
    const head = 84 + bytes.readUInt32BE(80);
    expect(bytes.subarray(84, head)).toEqual(golden('project-v1.golden.json'));
    const end = head + 4 + bytes.readUInt32BE(head);
    const hashOfHead = createHash('sha256').update(bytes.subarray(0, head)).digest('hex');
    const plaintext = openByHand('bundoc/catalog/v2', id, {
      nonce: bytes.subarray(head + 4, head + 16),
      text: bytes.subarray(head + 16, end - 16),
      tag: bytes.subarray(end - 16, end),
      aad: Buffer.from(`bundoc/catalog/v2\0golden\0${hashOfHead}\x000\0more`),
    });
    expect(plaintext).toHaveLength(24);
    // The four changes before it; no tombstone is purged.
    expect([plaintext.readUIntBE(0, 6), plaintext.readUIntBE(6, 6)]).toEqual([4, 0]);
    // One key version, version 1, with three seals.
    expect([plaintext.readUInt16BE(12), plaintext.readUInt32BE(14), plaintext.readUIntBE(18, 6)]).toEqual([
      1, 1, 3,
    ]);
  });

  it('include a move mark that its byte table alone can decode, as the service does, and only for its project', async () => {
    const text = golden('move-mark-v1.golden.txt').toString();
    const bytes = Buffer.from(text.slice('bundoc-move-mark-1.'.length), 'base64url');
    expect(text.startsWith('bundoc-move-mark-1.')).toBe(true);
    expect(bytes.readUInt32BE(0)).toBe(1);
    const plaintext = openByHand('bundoc/move-mark/v1', Buffer.alloc(0), {
      nonce: bytes.subarray(4, 16),
      text: bytes.subarray(16, -16),
      tag: bytes.subarray(-16),
      aad: Buffer.from('bundoc/move-mark/v1\0golden'),
    });
    const mark = JSON.parse(plaintext.toString());
    expect(mark).toEqual({
      state: 'leaving',
      move: '7f0c2d1e-6b1a-4c3d-8e5f-0a1b2c3d4e5f',
      from: '3c0e2b62-8f5c-4c0e-9a55-0f8f0c9d5a01',
      to: 'b6f7a1de-4f0e-4b0a-8e0b-5b6b0b1f4c11',
      since: '2026-11-27T08:00:00.000Z',
    });
    const keyOf = async (version: number) => (version === 1 ? deriveKey(dek, MARK_KEY) : undefined);
    expect(await openMoveMark('golden', text, keyOf)).toEqual(mark);
    expect(await openMoveMark('other', text, keyOf)).toBeUndefined();
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (bytes[at] as number) ^ 1;
      const forged = `bundoc-move-mark-1.${flipped.toString('base64url')}`;
      expect([at, await openMoveMark('golden', forged, keyOf)]).toEqual([at, undefined]);
    }
  });

  it('include a file of indexes that opens to the original entries', async () => {
    const sealed = fileInMemory(golden('indexes-v1.golden.bin'));
    const stored = await readIndexes('golden', openCipher(file, [key]), sealed);
    const of = (spec: IndexSpec) => {
      const index = new MemoryIndex(spec);
      const texts = {
        première: '{"n":-12.5,"tags":["a","é"],"mail":"x@example.org"}',
        b: '{"n":12345678901234567890}',
      };
      for (const [at, [id, text]] of Object.entries(texts).entries())
        index.put(id, 3 + at, index.keysFor(readValue(text)));
      return { collection: 'notes', spec, documents: [...index.documents()] };
    };
    // Keys are part of the format: another order of values would need another version.
    expect(stored).toEqual({
      asOf: 9,
      indexes: [
        of({ name: 'n+tags', fields: ['n', 'tags'], unique: false }),
        of({ name: 'mail', fields: ['mail'], unique: true }),
      ],
    });
  });

  it('include a file of indexes that its byte table alone can decode', () => {
    const bytes = golden('indexes-v1.golden.bin');
    expect(bytes.toString('latin1', 0, 8)).toBe('BUNDOCI1');
    const id = bytes.subarray(12, 28);
    const plaintext = openByHand('bundoc/indexes/v1', id, {
      nonce: bytes.subarray(32, 44),
      text: bytes.subarray(44, -16),
      tag: bytes.subarray(-16),
      aad: Buffer.from(`bundoc/indexes/v1\0golden\0${id.toString('hex')}\x000\0last`),
    });
    expect([plaintext.readUIntBE(0, 6), plaintext.readUInt8(6)]).toEqual([9, 1]);
    expect(plaintext.toString('utf8', 9, 14)).toBe('notes');
    // The negative number -12.5: its sign, then the complement of point, digits and end.
    expect(plaintext.includes(Buffer.from([0x06, 0x7f, 0x7d, 0xce, 0xcd, 0xca, 0xff]))).toBe(true);
  });

  it('include a backup that opens to the original state, with blocks that its byte table alone can decode', async () => {
    const bytes = golden('backup-v1.golden.bin');
    const source = async function* () {
      yield bytes;
    };
    const facts = await checkBackup(source());
    expect(facts.head).toMatchObject({ project: 'golden', keyVersion: 1 });
    const found: unknown[] = [];
    const end = await openBackup(source(), openCipher(file, [key]), async (changes) => {
      for (const { state } of changes)
        found.push({
          ref: { collection: state.collection, id: state.id },
          rev: state.rev.toString('hex'),
          deleted: state.deletedMs !== 0,
          position: state.seq,
        });
    });
    expect(found).toEqual(engine.changes);
    expect(end.entries).toBe(found.length);

    const nameEnd = 29 + bytes.readUInt8(28);
    expect(bytes.toString('latin1', 29, nameEnd)).toBe('golden');
    const hashOfHead = createHash('sha256').update(bytes.subarray(0, nameEnd)).digest();
    expect(bytes.subarray(nameEnd, nameEnd + 32)).toEqual(hashOfHead);
    const at = nameEnd + 32;
    const [sealedBytes, clearBytes] = [bytes.readUInt32BE(at + 1), bytes.readUInt32BE(at + 5)];
    const clear = bytes.subarray(at + 9 + sealedBytes, at + 9 + sealedBytes + clearBytes);
    const id = bytes.subarray(12, 28);
    const plaintext = openByHand('bundoc/backup/v1', id, {
      nonce: bytes.subarray(at + 9, at + 21),
      text: bytes.subarray(at + 21, at + 9 + sealedBytes - 16),
      tag: bytes.subarray(at + 9 + sealedBytes - 16, at + 9 + sealedBytes),
      aad: Buffer.from(
        ['bundoc/backup/v1', 'golden', id.toString('hex'), '0', 'more', hashOfHead.toString('hex')]
          .concat(createHash('sha256').update(clear).digest('hex'))
          .join('\0'),
      ),
    });
    expect(plaintext.toString('utf8', 2, 7)).toBe('notes');
  });
});

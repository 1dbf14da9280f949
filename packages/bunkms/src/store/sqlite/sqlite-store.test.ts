import { cpSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { storeConformance } from '../conformance/store.ts';
import { databasePathOf, openSqliteStore } from './sqlite-store.ts';

const onCrash = (error: Error) => {
  throw error;
};

storeConformance('SQLite', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'bunkms-store-'));
  return {
    open: () => openSqliteStore({ dataDir, onCrash, deadlineMs: PATIENT_MS }),
    dispose: async () => rmSync(dataDir, { recursive: true }),
  };
});

describe('the SQLite store', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-sqlite-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is readable by its owner only', async () => {
    const dataDir = join(folder, 'data', 'kms');
    await using store = await openSqliteStore({ dataDir, onCrash, deadlineMs: PATIENT_MS });
    await store.probe();
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
    for (const suffix of ['', '-wal', '-shm'])
      expect(statSync(`${databasePathOf(dataDir)}${suffix}`).mode & 0o777).toBe(0o600);
  });

  it('answers within its deadline while another process holds the write lock, and recovers', async () => {
    // Creating the tables may take long on a busy disk.
    await (await openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS })).close();
    await using store = await openSqliteStore({ dataDir: folder, onCrash, deadlineMs: 5_000 });
    const other = new DatabaseSync(databasePathOf(folder));
    other.exec('BEGIN IMMEDIATE');
    await expect(store.probe()).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect(store.auditHead()).resolves.toBeDefined();
    other.exec('ROLLBACK');
    other.close();
    const probed = () => store.probe().then(() => true);
    await expect.poll(() => probed().catch(() => false)).toBe(true);
  });

  it('answers a look-up before longer work of the same turn is done', async () => {
    await using store = await openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS });
    const other = new DatabaseSync(databasePathOf(folder));
    other.exec('BEGIN IMMEDIATE');
    const found = store.findActiveTokenFamily('none');
    const probed = store.probe().then(() => true);
    expect(await found).toBeUndefined();
    other.exec('ROLLBACK');
    other.close();
    expect(await probed).toBe(true);
  });

  it.each<[string, (path: string) => void]>([
    ['was removed', (path) => rmSync(path)],
    ['was renamed', (path) => renameSync(path, `${path}.old`)],
    [
      'was replaced by a copy',
      (path) => {
        cpSync(path, `${path}.copy`);
        renameSync(`${path}.copy`, path);
      },
    ],
  ])('acknowledges nothing after its file %s', async (_what, change) => {
    const store = await openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS });
    await store.probe();
    change(databasePathOf(folder));
    await expect(store.probe()).rejects.toMatchObject({
      code: 'storage_unavailable',
      cause: { message: expect.stringContaining('removed') as string },
    });
    await store.close();
  });

  it('refuses a database of a newer release', async () => {
    await (await openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS })).close();
    const database = new DatabaseSync(databasePathOf(folder));
    database.exec('PRAGMA user_version = 99');
    database.close();
    await expect(openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS })).rejects.toMatchObject(
      {
        code: 'storage_unavailable',
        cause: { message: expect.stringContaining('schema 99') as string },
      },
    );
  });

  it('refuses a file that is not a database, and does not change it', async () => {
    writeFileSync(databasePathOf(folder), 'this is a letter, and no database at all');
    await expect(openSqliteStore({ dataDir: folder, onCrash, deadlineMs: PATIENT_MS })).rejects.toMatchObject(
      {
        code: 'storage_unavailable',
      },
    );
    expect(statSync(databasePathOf(folder)).size).toBe(40);
  });

  it('reports a folder that it cannot create', async () => {
    writeFileSync(join(folder, 'file'), '');
    await expect(
      openSqliteStore({ dataDir: join(folder, 'file', 'kms'), onCrash, deadlineMs: PATIENT_MS }),
    ).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });
});

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { databasePathOf, openSqliteStore } from '../sqlite/sqlite-store.ts';
import { filteredListConformance, NAMES, RECORDS } from './lists.ts';

filteredListConformance('SQLite', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-lists-'));
  const store = await openSqliteStore({ dataDir: folder, onCrash: () => undefined, deadlineMs: PATIENT_MS });
  await store.probe();
  const database = new DatabaseSync(databasePathOf(folder), { timeout: PATIENT_MS });
  database.exec(`
    BEGIN;
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ${NAMES - 1})
    INSERT INTO keys (name, id, type, state, version, revision, exportable, kek_ids, version_digests, created_at)
      SELECT char(97 + i % 3) || printf('.%06x', i * 37 % ${NAMES}), 'id-' || i, 'aes-256', 'enabled', 1, 1, 1, '', x'',
        '2026-01-01T00:00:00.000Z' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${RECORDS})
    INSERT INTO audit (seq, time, severity, action, outcome, actor, key, prev_hash, hash)
      SELECT i, strftime('%Y-%m-%dT%H:%M:%fZ', 1700000000 + i, 'unixepoch'), iif(i % 9000 = 0, 'CRITICAL', 'INFO'), 'key.read', 'allowed',
        'actor-' || (i % 2), 'k' || (i % 5), '', '' FROM n;
    COMMIT`);
  database.close();
  return {
    store,
    [Symbol.asyncDispose]: async () => {
      await store.close();
      rmSync(folder, { recursive: true });
    },
  };
});

import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { AuditDraft } from '../../audit/chain.ts';
import { revocationDraft, tokenIssueDraft } from '../../audit/token-record.ts';
import type { StoreOperations } from '../port.ts';
import { Connection } from './connection.ts';
import { sqliteOperations } from './operations.ts';
import { insertToken } from './token-table.ts';

const TIME = '2026-01-01T00:00:00.000Z';
const CHAIN_KEY = createSecretKey(randomBytes(32));
const BY = { caller: { source: '127.0.0.1', request_id: 'test' }, time: TIME } as const;
const USE: AuditDraft = {
  ...BY.caller,
  time: TIME,
  severity: 'CRITICAL',
  action: 'key.export',
  outcome: 'allowed',
};

describe('the families of live tokens', () => {
  let folder: string;
  let connection: Connection;
  let store: StoreOperations;
  let other: Connection;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-families-'));
    const path = join(folder, 'bunkms.sqlite');
    connection = new Connection(path, PATIENT_MS);
    other = new Connection(path, PATIENT_MS);
    store = sqliteOperations(connection);
    store.unlock(CHAIN_KEY);
  });
  afterEach(() => {
    for (const one of [connection, other]) one.close();
    rmSync(folder, { recursive: true });
  });

  function newToken(): TokenInfo {
    const jti = randomUUID();
    return {
      ...{ jti, family: jti, sub: 'test', typ: 'service', aud: 'bunkms' },
      ...{ scope: ['kms:read_key'], keys: ['*'], projects: [] },
      ...{ issued_at: TIME, expires_at: '2026-01-02T00:00:00.000Z' },
    };
  }
  function issued(): TokenInfo {
    const token = newToken();
    store.insertToken(token, tokenIssueDraft({ ...BY, action: 'token.issue' }, token));
    return token;
  }
  const revocation = (token: TokenInfo) => revocationDraft(BY.caller, TIME, token);

  test('are looked up once while nobody writes of tokens, although records of other things are written', () => {
    const { jti } = issued();
    const row = vi.spyOn(connection, 'row');
    const lookUps = () => row.mock.calls.filter(([sql]) => sql.includes('FROM tokens')).length;
    expect(store.liveFamily(jti)).toBe(jti);
    for (let at = 0; at < 5; at++) store.appendAudit([USE, USE], [{ jti }, { jti }]);
    expect([store.liveFamily(jti), lookUps()]).toEqual([jti, 1]);
  });

  test('are looked up again once another connection has committed, and not before', () => {
    const { jti } = issued();
    expect(store.liveFamily(jti)).toBe(jti);
    other.beginWrite();
    other.run('DELETE FROM tokens');
    expect(store.liveFamily(jti)).toBe(jti);
    other.commit();
    expect(store.liveFamily(jti)).toBeUndefined();
  });

  test('end with the transaction that revokes one, and go on when that is taken back', () => {
    const [one, two] = [issued(), issued()];
    for (const { jti } of [one, two]) expect(store.liveFamily(jti)).toBe(jti);
    expect(store.revokeFamilies([revocation(one)])).toBe(1);
    expect([store.liveFamily(one.jti), store.liveFamily(two.jti)]).toEqual([undefined, two.jti]);
    const commit = vi.spyOn(connection, 'commit').mockImplementationOnce(() => {
      throw new Error('the disk is gone');
    });
    expect(() => store.revokeFamilies([revocation(two)])).toThrow('gone');
    expect(commit).toHaveBeenCalledOnce();
    expect(store.liveFamily(two.jti)).toBe(two.jti);
  });

  test('are not remembered of a token whose issue was taken back', () => {
    const token = newToken();
    insertToken(other, token);
    const issue = tokenIssueDraft({ ...BY, action: 'token.issue' }, token);
    const commit = vi.spyOn(connection, 'commit').mockImplementationOnce(() => {
      throw new Error('the disk is gone');
    });
    expect(() => store.appendAudit([issue, USE], [{}, { jti: token.jti }])).toThrow('gone');
    expect(commit).toHaveBeenCalledOnce();
    expect(store.liveFamily(token.jti)).toBeUndefined();
  });

  test('end when the tokens are removed since they have expired', () => {
    const { jti } = issued();
    expect(store.liveFamily(jti)).toBe(jti);
    const record = {
      ...BY.caller,
      time: TIME,
      severity: 'INFO',
      action: 'token.prune',
      outcome: 'allowed',
    } as const;
    expect(store.pruneTokens('2026-02-01T00:00:00.000Z', 10, record)).toBe(1);
    expect(store.liveFamily(jti)).toBeUndefined();
  });
});

import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { AuditDraft } from '../../records/chain.ts';
import { revocationDraft, tokenIssueDraft } from '../../records/token-record.ts';
import type { StoreOperations } from '../port.ts';
import { runSync } from '../sql/statement.ts';
import { TokenTable } from '../sql/token-table.ts';
import { Connection } from './connection.ts';
import { SQLITE } from './dialect.ts';
import { sqliteOperations } from './operations.ts';

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

describe('the families of active tokens', () => {
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
      jti,
      family: jti,
      sub: 'test',
      typ: 'service',
      aud: 'bunkms',
      scope: ['kms:read_key'],
      keys: ['*'],
      projects: [],
      issued_at: TIME,
      expires_at: '2026-01-02T00:00:00.000Z',
    };
  }
  function issued(): TokenInfo {
    const token = newToken();
    store.insertToken(token, tokenIssueDraft({ ...BY, action: 'token.issue' }, token));
    return token;
  }
  const revocation = (token: TokenInfo) => revocationDraft(BY.caller, TIME, token);

  it('are looked up once while no token changes, even if other records are written', () => {
    const { jti } = issued();
    const execute = vi.spyOn(connection, 'execute');
    const lookUps = () =>
      execute.mock.calls.filter(
        ([statement]) => statement.kind === 'each' && statement.query.sql.includes('FROM tokens'),
      ).length;
    expect(store.findActiveTokenFamily(jti)).toBe(jti);
    for (let at = 0; at < 5; at++) store.appendAudit([USE, USE], [{ jti }, { jti }]);
    expect([store.findActiveTokenFamily(jti), lookUps()]).toEqual([jti, 1]);
  });

  it('are looked up again only after another connection has committed', () => {
    const { jti } = issued();
    expect(store.findActiveTokenFamily(jti)).toBe(jti);
    other.beginWrite();
    other.run('DELETE FROM tokens');
    expect(store.findActiveTokenFamily(jti)).toBe(jti);
    other.commit();
    expect(store.findActiveTokenFamily(jti)).toBeUndefined();
  });

  it('end with the transaction that revokes one, and stay when it is rolled back', () => {
    const [one, two] = [issued(), issued()];
    for (const { jti } of [one, two]) expect(store.findActiveTokenFamily(jti)).toBe(jti);
    expect(store.revokeFamilies([revocation(one)])).toHaveLength(1);
    expect([store.findActiveTokenFamily(one.jti), store.findActiveTokenFamily(two.jti)]).toEqual([
      undefined,
      two.jti,
    ]);
    const commit = vi.spyOn(connection, 'commit').mockImplementationOnce(() => {
      throw new Error('the disk is gone');
    });
    expect(() => store.revokeFamilies([revocation(two)])).toThrow('gone');
    expect(commit).toHaveBeenCalledOnce();
    expect(store.findActiveTokenFamily(two.jti)).toBe(two.jti);
  });

  it('are not cached for a token whose issue was rolled back', () => {
    const token = newToken();
    runSync(new TokenTable(SQLITE).insert(token), (statement) => other.execute(statement));
    const issue = tokenIssueDraft({ ...BY, action: 'token.issue' }, token);
    const commit = vi.spyOn(connection, 'commit').mockImplementationOnce(() => {
      throw new Error('the disk is gone');
    });
    expect(() => store.appendAudit([issue, USE], [{}, { jti: token.jti }])).toThrow('gone');
    expect(commit).toHaveBeenCalledOnce();
    expect(store.findActiveTokenFamily(token.jti)).toBeUndefined();
  });

  it('end when expired tokens are removed', () => {
    const { jti } = issued();
    expect(store.findActiveTokenFamily(jti)).toBe(jti);
    const record = {
      ...BY.caller,
      time: TIME,
      severity: 'INFO',
      action: 'token.prune',
      outcome: 'allowed',
    } as const;
    expect(store.pruneTokens('2026-02-01T00:00:00.000Z', 10, record)).toBe(1);
    expect(store.findActiveTokenFamily(jti)).toBeUndefined();
  });
});

import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { describe, expect, it } from 'vitest';
import type { AuditCopy } from './audit-copy.ts';
import { EvidenceOfCopy } from './evidence.ts';
import type { Survey } from './survey.ts';

const { secrets } = { secrets: { publicKey: { kid: 'first' } } } as unknown as Survey;

function record(seq: number, action: string, more: Partial<AuditRecord> = {}): AuditRecord {
  const time = '2026-01-01T00:00:00.000Z';
  return { seq, time, severity: 'CRITICAL', action, outcome: 'allowed', prev_hash: '', hash: '', ...more };
}

const restored = (seq: number, kid: string) => record(seq, 'store.restore', { detail: { kid } });
const changed = (seq: number, action: string) =>
  record(seq, action, { key: 'a-dek', detail: { revision: 2 } });

function evidenceOf(notable: AuditRecord[], lost: AuditCopy['lost'] = []): EvidenceOfCopy {
  return new EvidenceOfCopy({ notable, lost } as unknown as AuditCopy, { secrets });
}

describe('the evidence of a copy', () => {
  it('has the signing key of its last restore, unless a rollback has brought a former one back', () => {
    expect(evidenceOf([]).kid).toBe('first');
    expect(evidenceOf([restored(5, 'second')]).kid).toBe('second');
    expect(evidenceOf([restored(5, 'first')]).kid).toBe('first');
    const lost = [{ record: restored(5, 'second'), lostFrom: 5 }];
    expect(evidenceOf([], lost).kid).toBeUndefined();
    expect(evidenceOf([restored(5, 'second')], lost).kid).toBe('second');
  });

  it.each(['key.destroy', 'key.disable', 'key.schedule_deletion', 'key.deletion_intent'])(
    'covers no key with %s in a lost end, until somebody enables it after that end',
    (action) => {
      const lost = [{ record: changed(8, action), lostFrom: 7 }];
      expect(evidenceOf([], lost).covers('a-dek')).toBe(false);
      expect(evidenceOf([], lost).covers('b-dek')).toBe(true);
      expect(evidenceOf([changed(6, 'key.enable')], lost).covers('a-dek')).toBe(false);
      expect(evidenceOf([changed(7, 'key.enable')], lost).covers('a-dek')).toBe(true);
      // The end with that act was lost as well, by a later rollback.
      const again = [...lost, { record: changed(12, action), lostFrom: 10 }];
      expect(evidenceOf([changed(7, 'key.enable')], again).covers('a-dek')).toBe(false);
    },
  );

  it('has the revocations of lost ends', () => {
    const revoked = record(8, 'token.revoke', { detail: { family: 'f' } });
    expect(evidenceOf([], [{ record: revoked, lostFrom: 7 }]).revokedFamilies).toEqual(new Set(['f']));
  });
});

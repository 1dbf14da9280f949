import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditDraft, ChainFault } from '../../audit/chain.ts';
import { keyChangeDraft, withDigests } from '../../audit/key-record.ts';
import { kekIdOf } from '../../vault/vault.ts';
import type { KeyRecord, KeyVersionRecord } from '../port.ts';
import { keyRecordOf } from '../row-records.ts';
import type { AuditTable } from './audit-table.ts';
import type { Connection } from './connection.ts';
import { readVersions, updateKey } from './key-table.ts';

/** What the records of an earlier release tell of a key. */
interface Told {
  readonly keyId: unknown;
  /** The check value of each version that was made, in order. */
  readonly kcvs: unknown[];
}

/**
 * Takes the keys of an earlier release into the audit chain, inside a write transaction. The mark comes first: who cuts it off
 * the end of the chain cuts off the records of all keys as well.
 *
 * A key that the chain tells another story of was changed before: it is on record as not adopted, and so stays damaged.
 */
export function adoptKeys(
  connection: Connection,
  audit: AuditTable,
  mark: AuditDraft,
): ChainFault | undefined {
  const told = new Map<string, Told>();
  const fault = audit.verify((record) => note(told, record));
  if (fault !== undefined) return fault;
  audit.append(mark);
  const { time, actor } = mark;
  const origin = { caller: actor === undefined ? {} : { actor }, time, action: 'key.adopt' };
  for (const row of [...connection.rows('SELECT * FROM keys WHERE revision = 0 ORDER BY name')]) {
    const record = keyRecordOf(row);
    const versions = readVersions(connection, record, 'all');
    if (!agrees(record, versions, told.get(record.name))) continue;
    const kekIds = new Set(versions.flatMap(({ wrapped }) => kekIdOf(wrapped) ?? []));
    const adopted: KeyRecord = {
      ...record,
      revision: 1,
      kekIds: [...kekIds],
      versionDigests: withDigests(record.versionDigests, versions),
    };
    updateKey(connection, { record: adopted, versions: [], audit: mark, previous: record });
    audit.append(keyChangeDraft(origin, adopted));
    told.delete(record.name);
  }
  // Their names stay taken: whoever asks for such a key must not be told that there never was one.
  for (const [key, { keyId }] of told)
    audit.append({
      ...origin.caller,
      time,
      severity: 'CRITICAL',
      action: 'key.adopt',
      outcome: 'failed',
      key,
      detail: { key_id: String(keyId), revision: 0 },
    });
  return undefined;
}

function note(told: Map<string, Told>, { action, key, outcome, detail }: AuditRecord): void {
  if (key === undefined || outcome !== 'allowed') return;
  if (action === 'key.create') told.set(key, { keyId: detail?.['key_id'], kcvs: [detail?.['kcv']] });
  if (action === 'key.rotate') told.get(key)?.kcvs.push(detail?.['kcv']);
}

/** A version that was lost is no reason to leave out the others. */
function agrees(record: KeyRecord, versions: readonly KeyVersionRecord[], told: Told | undefined): boolean {
  return (
    told !== undefined &&
    told.keyId === record.id &&
    told.kcvs.length === record.version &&
    record.state === 'enabled' &&
    versions.every(({ version, kcv }) => version <= record.version && told.kcvs[version - 1] === kcv)
  );
}

import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import { opens } from '../keys/open-dek.ts';
import type { ChainFault } from '../records/chain.ts';
import { ChainWalk } from '../records/chain-walk.ts';
import type { Installation } from '../records/installation.ts';
import { isKekRecord } from '../records/kek-state.ts';
import { isGenuineVersion, type KeyRecord, type KeyVersionRecord } from '../records/key-record.ts';
import { kekIdOf } from '../records/wrapped-key.ts';
import { type OpenedInstallation, openInstallation } from '../vault/unseal.ts';
import type { Vault } from '../vault/vault.ts';
import type { ArchiveEnd, ArchiveHead } from './archive-entry.ts';
import { DamagedFile, MissingKek } from './errors.ts';
import { LatestChanges } from './latest-changes.ts';
import { type Pace, unpaced } from './pace.ts';
import { type ArchivedKey, readArchive } from './read-archive.ts';

/** A key or a version that would not work after a restore. */
export interface KeyFinding {
  readonly key: string;
  readonly version?: number;
  readonly problem: string;
}

/** The result of checking an archive. */
export interface Survey {
  readonly head: ArchiveHead;
  readonly end: ArchiveEnd;
  readonly installation: Installation;
  readonly secrets: OpenedInstallation;
  /** Where the audit chain is broken, as it was in the backed up store. */
  readonly chainFault: ChainFault | undefined;
  /** All KEKs that the keys in it need. */
  readonly kekIds: readonly string[];
  readonly findings: readonly KeyFinding[];
  /** The latest change of each key in the audit chain. */
  readonly changes: LatestChanges;
  /** The records of the KEKs in the audit chain. */
  readonly kekRecords: readonly AuditRecord[];
}

export interface SurveyOptions {
  /** Receipts of records; those up to the end of the backup must match. */
  readonly receipts?: readonly AuditReceipt[];
  readonly onProgress?: (bytes: number) => void;
  /** Called before each item. */
  readonly pace?: Pace;
}

/**
 * Reads a complete archive and checks it: every chunk, the audit chain, every key against the chain, and that
 * every version opens.
 *
 * @throws DamagedFile, MissingKek.
 */
export async function surveyArchive(
  vault: Vault,
  source: ByteSource,
  { receipts = [], onProgress, pace = unpaced }: SurveyOptions = {},
): Promise<Survey> {
  let head: ArchiveHead | undefined;
  let end: ArchiveEnd | undefined;
  let installation: Installation | undefined;
  let secrets: OpenedInstallation | undefined;
  let walk: ChainWalk | undefined;
  const changes = new LatestChanges();
  const names = new Set<string>();
  const kekIds = new Set<string>();
  const findings: KeyFinding[] = [];
  const kekRecords: AuditRecord[] = [];
  const expected = new Map(receipts.map(({ seq, hash }) => [seq, hash]));
  for await (const item of readArchive(vault, source, onProgress)) {
    const rest = pace();
    if (rest !== undefined) await rest;
    switch (item.kind) {
      case 'head':
        head = item.head;
        break;
      case 'installation':
        installation = item.installation;
        secrets = openArchived(vault, installation);
        walk = new ChainWalk(secrets.chainKey);
        break;
      case 'record':
        if (walk !== undefined) changes.note(item.record, walk.take(item.record));
        requireReceipt(expected, item.record);
        if (isKekRecord(item.record)) kekRecords.push(item.record);
        break;
      case 'key':
        names.add(item.key.name);
        for (const { wrapped } of item.versions) for (const id of idOf(wrapped)) kekIds.add(id);
        findings.push(...findingsOf(vault, changes, item));
        break;
      case 'token':
        break;
      case 'end':
        end = item.end;
    }
  }
  if (head === undefined || end === undefined || installation === undefined || secrets === undefined)
    throw new DamagedFile('the backup is inconsistent');
  for (const seq of expected.keys())
    if (seq <= end.audit.seq)
      throw new DamagedFile(`the backup lacks record ${seq}, for which a receipt exists`);
  for (const name of changes.names()) if (!names.has(name)) findings.push({ key: name, problem: 'is lost' });
  return {
    head,
    end,
    installation,
    secrets,
    chainFault: walk?.fault,
    kekIds: [...kekIds].sort(),
    findings,
    changes,
    kekRecords,
  };
}

/** Whether all of it would work after a restore. */
export function isSound({ chainFault, findings }: Survey): boolean {
  return chainFault === undefined && findings.length === 0;
}

/** Removes a receipt that is confirmed. @throws DamagedFile for another record in its place. */
function requireReceipt(expected: Map<number, string>, { seq, hash }: AuditRecord): void {
  const known = expected.get(seq);
  expected.delete(seq);
  if (known !== undefined && known !== hash)
    throw new DamagedFile(
      `record ${seq} of the backup is not that of the receipt: it belongs to another history`,
    );
}

/** The secrets of an archived installation. @throws MissingKek, DamagedFile. */
function openArchived(vault: Vault, installation: Installation): OpenedInstallation {
  const secrets = openInstallation(vault, installation);
  if (secrets.kind === 'unsealed') return secrets;
  for (const wrapped of [installation.chainKeyWrapped, installation.signingSeedWrapped]) {
    const kekId = kekIdOf(wrapped);
    if (kekId !== undefined && vault.checkValueOf(kekId) === undefined)
      throw new MissingKek('the installation in the backup', kekId);
  }
  throw new DamagedFile(`the installation in the backup does not open: ${secrets.reason}`);
}

function findingsOf(vault: Vault, changes: LatestChanges, { key, versions }: ArchivedKey): KeyFinding[] {
  const fault = changes.faultOf(key);
  if (fault !== undefined) return [{ key: key.name, problem: `is damaged: ${fault}` }];
  const byNumber = new Map(versions.map((version) => [version.version, version]));
  const findings: KeyFinding[] = [];
  for (let version = 1; version <= key.version; version++) {
    const problem = problemOf(vault, key, byNumber.get(version));
    if (problem !== undefined) findings.push({ key: key.name, version, problem });
  }
  return findings;
}

function problemOf(vault: Vault, key: KeyRecord, version: KeyVersionRecord | undefined): string | undefined {
  if (version === undefined || !isGenuineVersion(key, version)) return 'is lost, changed or rolled back';
  if (version.state === 'destroyed') return undefined;
  const [kekId] = idOf(version.wrapped);
  if (kekId !== undefined && vault.checkValueOf(kekId) === undefined)
    return `needs the KEK ${kekId}, which the ring lacks`;
  return opens(vault, key.name, version) ? undefined : 'does not open';
}

function idOf(wrapped: Uint8Array): string[] {
  const kekId = kekIdOf(wrapped);
  return kekId === undefined ? [] : [kekId];
}

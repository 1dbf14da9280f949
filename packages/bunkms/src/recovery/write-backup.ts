import assert from 'node:assert/strict';
import { type KeyObject, randomBytes } from 'node:crypto';
import { defined } from '@bundoc/shared/contract/defined';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Caller } from '../records/caller.ts';
import type { ChainFault } from '../records/chain.ts';
import { ChainWalk } from '../records/chain-walk.ts';
import type { AuditStore } from '../store/audit.ts';
import type { InstallationStore } from '../store/installation.ts';
import type { StoreEntry, TransferStore } from '../store/transfer.ts';
import type { Vault } from '../vault/vault.ts';
import { sealArchive } from './archive.ts';
import { type ArchiveEnd, type ArchiveLine, encodeLine } from './archive-entry.ts';
import { type Pace, unpaced } from './pace.ts';

export interface BackupDeps {
  readonly store: AuditStore & TransferStore & InstallationStore;
  readonly vault: Vault;
  readonly chainKey: KeyObject;
  readonly clock: Clock;
}

/** Facts about a written archive. */
export interface BackupFacts extends ArchiveEnd {
  readonly id: string;
  readonly created_at: string;
  /** Where the audit chain is broken; the archive contains it unchanged. */
  readonly chain_fault?: ChainFault;
  /** Entries that were left out because they are too damaged to encode. */
  readonly left_out: readonly string[];
}

export interface Backup {
  /** The archive in pieces. */
  readonly bytes: AsyncIterable<Buffer>;
  /** Available once all bytes were consumed. */
  facts(): BackupFacts;
}

const ID_BYTES = 16;

/**
 * Creates an archive of the store at the moment of its first piece, while others may write. Damaged entries
 * are damaged in the archive too. Its creation is recorded first, so the archive contains that record.
 *
 * @param onProgress called with the number of entries read.
 * @param pace called before each entry.
 * @throws AppError of the store.
 */
export async function createBackup(
  { store, vault, chainKey, clock }: BackupDeps,
  caller: Caller,
  onProgress: (entries: number) => void,
  pace: Pace = unpaced,
): Promise<Backup> {
  const id = randomBytes(ID_BYTES).toString('hex');
  const created_at = new Date(clock.now()).toISOString();
  await store.appendAudit([
    {
      ...caller,
      time: created_at,
      severity: 'INFO',
      action: 'store.backup',
      outcome: 'allowed',
      detail: { archive: id, kek_id: vault.currentKekId },
    },
  ]);
  const walk = new ChainWalk(chainKey);
  const leftOut: string[] = [];
  const counts = { record: 0, key: 0, version: 0, token: 0 };
  const end = (): ArchiveEnd => ({
    audit: walk.head,
    records: counts.record,
    keys: counts.key,
    versions: counts.version,
    tokens: counts.token,
  });

  async function* lines(): AsyncGenerator<string> {
    yield encoded(['archive', { format: 2, id, created_at }]);
    let entries = 0;
    // The versions of an omitted key are omitted too.
    let keyId: string | undefined;
    for await (const batch of store.readAll()) {
      for (const entry of batch) {
        const rest = pace();
        if (rest !== undefined) await rest;
        if (entry.kind === 'record') walk.take(entry.record);
        const isOrphan = entry.kind === 'version' && entry.version.keyId !== keyId;
        const line = isOrphan ? undefined : encodeLine(toLine(entry));
        // Without the installation nothing opens. A service on such a store is sealed.
        if (entry.kind === 'installation' && line === undefined)
          throw new Error('the installation is damaged, so nothing can be backed up');
        if (entry.kind === 'key') keyId = line === undefined ? undefined : entry.key.id;
        if (line !== undefined) yield line;
        if (entry.kind === 'installation') continue;
        if (line === undefined) leftOut.push(toName(entry));
        else counts[entry.kind]++;
      }
      entries += batch.length;
      onProgress(entries);
    }
    yield encoded(['end', end()]);
  }

  return {
    bytes: sealArchive(vault, lines()),
    facts: () => ({
      id,
      created_at,
      ...end(),
      ...defined({ chain_fault: walk.fault }),
      left_out: leftOut,
    }),
  };
}

function toLine(entry: StoreEntry): ArchiveLine {
  switch (entry.kind) {
    case 'installation':
      return ['installation', entry.installation];
    case 'record':
      return ['record', entry.record];
    case 'key':
      return ['key', entry.key];
    case 'version':
      return ['version', entry.version];
    case 'token':
      return ['token', entry.token];
  }
}

function encoded(line: ArchiveLine): string {
  const text = encodeLine(line);
  assert(text !== undefined, 'the head and end of an archive fit its format');
  return text;
}

function toName(entry: Exclude<StoreEntry, { kind: 'installation' }>): string {
  switch (entry.kind) {
    case 'record':
      return `audit record ${entry.record.seq}`;
    case 'key':
      return `key ${entry.key.name}`;
    case 'version':
      return `version ${entry.version.version} of key ${entry.version.keyId}`;
    case 'token':
      return `token ${entry.token.jti}`;
  }
}

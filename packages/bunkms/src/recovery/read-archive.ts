import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import type { Installation } from '../records/installation.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import type { Vault } from '../vault/vault.ts';
import { openArchive } from './archive.ts';
import { type ArchiveEnd, type ArchiveHead, type ArchiveLine, decodeLine } from './archive-entry.ts';
import { DamagedFile } from './errors.ts';

/** The items of an archive, in this order: head, installation, records, keys, tokens, end. */
export type ArchiveItem =
  | { readonly kind: 'head'; readonly head: ArchiveHead }
  | { readonly kind: 'installation'; readonly installation: Installation }
  | { readonly kind: 'record'; readonly record: AuditRecord }
  | ArchivedKey
  | { readonly kind: 'token'; readonly token: TokenInfo }
  | { readonly kind: 'end'; readonly end: ArchiveEnd };

/**
 * A key with those of its versions that had records. It must be authenticated with the audit chain before
 * use.
 */
export interface ArchivedKey {
  readonly kind: 'key';
  readonly key: KeyRecord;
  readonly versions: readonly KeyVersionRecord[];
}

const ORDER: readonly ArchiveLine[0][] = ['archive', 'installation', 'record', 'key', 'token', 'end'];

/**
 * Reads an archive item by item. The end is yielded only if everything before it was complete.
 *
 * @throws DamagedFile, MissingKek.
 */
export async function* readArchive(
  vault: Vault,
  source: ByteSource,
  onProgress?: (bytes: number) => void,
): AsyncGenerator<ArchiveItem> {
  const counts = { record: 0, key: 0, version: 0, token: 0 };
  let place = -1;
  let pending: { kind: 'key'; key: KeyRecord; versions: KeyVersionRecord[] } | undefined;
  for await (const text of openArchive(vault, source, onProgress)) {
    const [kind, value] = decodeLine(text);
    if (kind === 'version') {
      if (pending?.key.id !== value.keyId) throw outOfOrder();
      counts.version++;
      pending.versions.push(value);
      continue;
    }
    if (pending !== undefined) yield pending;
    pending = undefined;
    place = nextPlace(kind, place);
    switch (kind) {
      case 'archive':
        yield { kind: 'head', head: value };
        break;
      case 'installation':
        yield { kind: 'installation', installation: value };
        break;
      case 'record':
        counts.record++;
        yield { kind: 'record', record: value };
        break;
      case 'key':
        counts.key++;
        pending = { kind: 'key', key: value, versions: [] };
        break;
      case 'token':
        counts.token++;
        yield { kind: 'token', token: value };
        break;
      case 'end':
        requireCounts(value, counts);
        yield { kind: 'end', end: value };
    }
  }
  if (place !== ORDER.length - 1) throw outOfOrder();
}

/**
 * The position of a kind in the order. Head, installation and end occur once; the head is first, and nothing
 * follows the end.
 */
function nextPlace(kind: ArchiveLine[0], before: number): number {
  const place = ORDER.indexOf(kind);
  const mayRepeat = kind === 'record' || kind === 'key' || kind === 'token';
  const isFirst = before < 0 ? place === 0 : place > before && (before > 0 || place === 1);
  if (!isFirst && !(mayRepeat && place === before)) throw outOfOrder();
  return place;
}

function requireCounts(
  end: ArchiveEnd,
  counts: { record: number; key: number; version: number; token: number },
): void {
  const { record, key, version, token } = counts;
  if (end.records !== record || end.keys !== key || end.versions !== version || end.tokens !== token)
    throw outOfOrder();
}

function outOfOrder(): DamagedFile {
  return new DamagedFile('the backup is inconsistent');
}

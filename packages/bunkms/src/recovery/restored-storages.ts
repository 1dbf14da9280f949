import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { STORAGE_ACTIONS, storageDraft, storageIn, takeOverTime } from '../records/storage-record.ts';
import type { LoadEntry } from '../store/transfer.ts';
import type { RestoreParts } from './restore-parts.ts';

/**
 * The storages of a restored store. The restore may have lost take-overs, so it counts as one of each
 * storage, later than any that a Bundoc may have seen. Generations stay, so a running Bundoc continues.
 */
export class RestoredStorages {
  /** The number of these storages. */
  count = 0;
  readonly #parts: RestoreParts;
  /** The latest record of each storage. */
  readonly #latest = new Map<string, AuditRecord>();

  constructor(parts: RestoreParts) {
    this.#parts = parts;
  }

  /** A record of the restored chain, in its order. */
  note(record: AuditRecord): void {
    const { action, detail } = record;
    if (STORAGE_ACTIONS.includes(action)) this.#latest.set(String(detail?.['storage']), record);
  }

  /**
   * A record of each storage with a new take-over. A storage whose latest record was changed gets none: it
   * stays as refused as it was.
   */
  *takenOver(): Generator<LoadEntry> {
    const { caller, time, survey } = this.#parts;
    for (const [id, record] of this.#latest) {
      const state = storageIn(survey.secrets.chainKey, id, record);
      if (state === undefined) continue;
      this.count++;
      const takenOverMs = takeOverTime(state.takenOverMs, Date.parse(time));
      const draft = storageDraft({ caller, time }, 'storage.take_over', { ...state, takenOverMs });
      yield { kind: 'new-record', draft };
    }
  }
}

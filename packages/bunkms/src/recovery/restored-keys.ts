import { defined } from '@bundoc/shared/contract/defined';
import { opens } from '../keys/open-dek.ts';
import type { KeyChange } from '../store/keys.ts';
import type { LoadEntry } from '../store/transfer.ts';
import type { ArchivedKey } from './read-archive.ts';
import type { Recovery } from './recovered-key.ts';
import { draftOf, type RestoreParts } from './restore-parts.ts';
import { archivedSnapshot, knownKey, restoredKey } from './restored-key.ts';

/** Generates the keys of a restored store, and tracks their progress. */
export class RestoredKeys {
  /** Keys that are in the store. */
  count = 0;
  /** Names, as the report has them. */
  readonly held: string[] = [];
  readonly destroyed: string[] = [];
  readonly incomplete: string[] = [];
  readonly damaged: string[] = [];
  readonly #parts: RestoreParts;
  readonly #recovery: Recovery;
  /** Names of keys in the backup. */
  readonly #names = new Set<string>();

  constructor(parts: RestoreParts) {
    this.#parts = parts;
    this.#recovery = { caller: parts.caller, time: parts.time, source: 'backup' };
  }

  /** A key of the backup. */
  *archived(archived: ArchivedKey): Generator<LoadEntry> {
    const { key, versions } = archived;
    const { name } = key;
    this.#names.add(name);
    if (this.#parts.survey.changes.faultOf(key) !== undefined) {
      yield* this.#damagedKey(archived);
      return;
    }
    const known = this.#parts.evidence?.snapshot(name, archivedSnapshot(archived));
    const change = restoredKey(archived, known, this.#isCovered(name), this.#recovery);
    if (change !== undefined) yield* this.#changed(change);
    else {
      this.count++;
      yield { kind: 'key', key };
      for (const version of versions) yield { kind: 'version', version };
    }
  }

  /**
   * A key whose record contradicts the chain. If its state is known, it comes back in that state, with the
   * versions that open under its identity. Otherwise its record is dropped, because anybody may have written
   * it.
   */
  *#damagedKey({ key, versions }: ArchivedKey): Generator<LoadEntry> {
    const known = this.#parts.evidence?.snapshot(key.name, undefined);
    if (known === undefined) {
      this.damaged.push(key.name);
      return;
    }
    const own = versions.filter(
      (version) => version.keyId === known.id && opens(this.#parts.vault, key.name, version),
    );
    yield* this.#changed(knownKey(known, own, this.#isCovered(key.name), this.#recovery));
  }

  *#changed({ record, versions, audit }: KeyChange): Generator<LoadEntry> {
    this.count++;
    yield { kind: 'key', key: record };
    for (const version of versions) yield { kind: 'version', version };
    const withdrawn = this.#withdrawalIn(record.name);
    yield { kind: 'new-record', draft: { ...audit, detail: { ...audit.detail, ...withdrawn } } };
    if (record.state === 'destroyed') this.destroyed.push(record.name);
    else if (!this.#isCovered(record.name)) this.held.push(record.name);
    if (versions.length < record.version) this.incomplete.push(record.name);
  }

  /** Keys that were created after the backup. Their material is not available, but their names stay taken. */
  *newer(): Generator<LoadEntry> {
    for (const name of this.#parts.evidence?.names() ?? []) {
      if (this.#names.has(name)) continue;
      const known = this.#parts.evidence?.snapshot(name, undefined);
      if (known !== undefined)
        yield* this.#changed(knownKey(known, [], this.#isCovered(name), this.#recovery));
    }
  }

  #isCovered(name: string): boolean {
    return this.#parts.evidence?.covers(name) === true;
  }

  /** The detail that tells an administrator who reviews the key how a lost end of the chain withdrew it. */
  #withdrawalIn(name: string): { readonly lost_withdrawal?: string } {
    return defined({ lost_withdrawal: this.#parts.evidence?.lostWithdrawal(name) });
  }

  /**
   * Names in the chain of the backup without a record. They stay damaged. A later recovery restores them
   * disabled, unless their state is fully known.
   */
  *lost(): Generator<LoadEntry> {
    const damaged = new Set(this.damaged);
    for (const name of this.#parts.survey.changes.names()) {
      if (this.#names.has(name) && !damaged.has(name)) continue;
      if (this.#parts.evidence?.snapshot(name, undefined) !== undefined) continue;
      if (!damaged.has(name)) this.damaged.push(name);
      if (this.#isCovered(name)) continue;
      const draft = draftOf(this.#parts, 'key.recover', {
        revision: 0,
        source: 'backup',
        ...this.#withdrawalIn(name),
      });
      yield { kind: 'new-record', draft: { ...draft, outcome: 'failed', key: name, code: 'key_damaged' } };
    }
  }
}

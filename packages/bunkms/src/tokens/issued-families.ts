import type { KeyObject } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import type { AuditDraft } from '../records/chain.ts';
import { isGenuine } from '../records/chain-walk.ts';
import type { RevokedFamily, TokenStore } from '../store/tokens.ts';

/** Maximum places per call of the store, and records per place: other calls wait. */
const PLACES = 50;
const RECORDS = 200;

interface Ports {
  readonly store: Pick<TokenStore, 'listIssues' | 'revokeFamilies'>;
  readonly chainKey: KeyObject;
}

/** The result of {@link IssuedFamilies.end}. */
interface Ended {
  readonly count: number;
  /** False when a record was not genuine: there may be more tokens that cannot be found. */
  readonly isComplete: boolean;
}

/**
 * Finds the families that the tokens of one family have issued, directly or indirectly. It follows only
 * genuine records. It visits each family once, generation by generation, with a bounded number of records at
 * a time.
 */
export class IssuedFamilies {
  readonly #deps: Ports;
  readonly #root: string;
  #isComplete = true;

  constructor(deps: Ports, root: string) {
    this.#deps = deps;
    this.#root = root;
  }

  /**
   * Revokes those with a token that expires at `time` or later. The root is revoked before.
   *
   * @param draftOf creates the revocation of a family, from the record of its token that expires last.
   */
  async end(time: string, draftOf: (issue: AuditRecord) => AuditDraft): Promise<Ended> {
    const known = new Set([this.#root]);
    let count = 0;
    for (let generation = [this.#root]; generation.length > 0; ) {
      const next: string[] = [];
      for (let at = 0; at < generation.length; at += PLACES) {
        const { jtis, ended } = await this.#endFamilies(generation.slice(at, at + PLACES), time, draftOf);
        count += ended;
        for await (const issue of this.#issues('issuer', jtis)) {
          const family = textIn(issue, 'family');
          if (known.has(family)) continue;
          known.add(family);
          next.push(family);
        }
      }
      generation = next;
    }
    return { count, isComplete: this.#isComplete };
  }

  /**
   * @returns all tokens of the families. Once a family is revoked, no token can be added to it or issued by
   *   it.
   */
  async #endFamilies(families: readonly string[], time: string, draftOf: (issue: AuditRecord) => AuditDraft) {
    const jtis: string[] = [];
    const revoked = new Set([this.#root]);
    const looked = new Map<string, number>();
    for (let ended = 0; ; ) {
      let isOver = true;
      const latest = new Map<string, AuditRecord>();
      for await (const issue of this.#issues('family', families, looked)) {
        isOver = false;
        jtis.push(textIn(issue, 'token'));
        const family = textIn(issue, 'family');
        const before = latest.get(family);
        if (before === undefined || textIn(before, 'expires_at') < textIn(issue, 'expires_at'))
          latest.set(family, issue);
      }
      if (isOver) return { jtis, ended };
      const live = [...latest].filter(
        ([family, issue]) => !revoked.has(family) && textIn(issue, 'expires_at') >= time,
      );
      for (const [family] of live) revoked.add(family);
      if (live.length > 0)
        ended += newOf(await this.#deps.store.revokeFamilies(live.map(([, issue]) => draftOf(issue))));
    }
  }

  /** @param looked the last record that was read for each; updated. */
  async *#issues(
    by: 'family' | 'issuer',
    of: readonly string[],
    looked = new Map<string, number>(),
  ): AsyncGenerator<AuditRecord, void, undefined> {
    const { store, chainKey } = this.#deps;
    for (const open = [...of]; open.length > 0; ) {
      const places = open.splice(0, PLACES).map((one) => ({ of: one, after: looked.get(one) ?? 0 }));
      const found = await store.listIssues(by, places, RECORDS);
      for (const [at, { of: one }] of places.entries()) {
        const records = found[at] ?? [];
        if (records.length === RECORDS) open.push(one);
        for (const record of records) {
          looked.set(one, record.seq);
          if (record.detail?.[by] === one && isGenuine(chainKey, record)) yield record;
          else this.#isComplete = false;
        }
      }
    }
  }
}

function textIn({ detail = {} }: AuditRecord, member: string): string {
  return String(detail[member]);
}

function newOf(families: readonly RevokedFamily[]): number {
  return families.filter(({ isNew }) => isNew).length;
}

import { AppError } from '@bundoc/shared/contract/app-error';
import { SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { smallRandom } from '@bundoc/shared/crypto/random';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { composeStoredText } from '../../../crypto/stored-text.ts';
import type { WaitingCommit, Write, WriteResult } from '../../port.ts';
import { IDEMPOTENCY_TTL_MS } from '../../port.ts';
import { holds, preconditionsFailed } from '../../precondition.ts';
import { addedBy, NOTHING, type Quota, QuotaOfGroup, sumOf, type Usage } from '../../quota.ts';
import { type DocumentState, REV_BYTES, type UsedKey } from '../../state.ts';

import { type BlindEntries, type BlindIndex, isEnforced } from '../indexes/blind-index.ts';
import type { GroupIndexContext } from '../indexes/group-index-context.ts';

/** A commit that waits, with the names of what it writes. */
export interface Waiting extends WaitingCommit {
  /** Of each write's document, in hex. */
  readonly names: readonly string[];
  readonly subject: string;
  readonly queuedMs: number;
}

/** What the database has of a project, as far as its commits in a group ask for it, under the project's lock. */
export interface PreState {
  /** Of the last commit. */
  readonly seq: number;
  readonly indexVersion: number;
  /** The sealed count of the current key version; undefined where its row is missing. */
  readonly seals: Buffer | null | undefined;
  /** Seals that the key version may still make. */
  readonly sealsLeft: number;
  /** By name, tombstones too. */
  readonly states: ReadonlyMap<string, DocumentState>;
  /** By idempotency key, the ones that are still remembered. */
  readonly usedKeys: ReadonlyMap<string, UsedKey>;
  /** What the project holds; undefined when nobody asked. */
  readonly usage?: Usage | undefined;
}

/** The time and the revisions of a commit, drawn once: it may be planned more than once. */
export interface Draft {
  readonly nowMs: number;
  /** Of each write. */
  readonly revs: readonly Buffer[];
}

/** The last state of a document that a group writes. */
export interface PlannedWrite {
  readonly state: DocumentState;
  /** What the database has of it. */
  readonly former: DocumentState | undefined;
  /** To be sealed; undefined for a delete, and for what is sealed already. */
  readonly text: Buffer | undefined;
  readonly sealed?: Buffer | undefined;
  /** All that it has in the indexes of its collection; undefined where there are none. */
  readonly entries?: readonly BlindEntries[] | undefined;
}

export interface CommitPlan {
  /**
   * Answers each commit, once the transaction has taken effect. Refusals wait for it as well: they may depend on what
   * other commits of the transaction write.
   */
  readonly answers: readonly (() => void)[];
  /** Each document once. */
  readonly documents: readonly PlannedWrite[];
  readonly usedKeys: readonly UsedKey[];
  readonly seq: number;
  /** Commits that are planned; those behind them are for another transaction. */
  readonly taken: number;
}

type Change = Pick<PlannedWrite, 'state' | 'text' | 'entries'>;

export function draftsOf(group: readonly Waiting[], clock: Clock): readonly Draft[] {
  return group.map(({ writes }) => ({ nowMs: clock.now(), revs: writes.map(() => smallRandom(REV_BYTES)) }));
}

/**
 * Decides the commits of one project in a transaction, in their order, each against all that come before it. Seals nothing
 * and answers nobody; the same input gives the same plan.
 */
export function planCommits(
  group: readonly Waiting[],
  known: PreState,
  drafts: readonly Draft[],
  ports: {
    readonly cipher: ProjectCipher;
    readonly indexing: GroupIndexContext;
    readonly quota?: Quota | undefined;
  },
): CommitPlan {
  const { cipher, indexing } = ports;
  const quota = ports.quota && known.usage && new QuotaOfGroup(ports.quota, known.usage);
  const answers: (() => void)[] = [];
  const changes = new Map<string, Change>();
  const usedHere = new Map<string, UsedKey>();
  let { seq, sealsLeft } = known;
  let taken = 0;
  indexing.begin();
  for (const [place, { writes, names, options, done }] of group.entries()) {
    const uniquely = indexing.commit();
    if (uniquely === undefined) break;
    taken++;
    const { nowMs, revs } = drafts[place] as Draft;
    const { idempotency } = options;
    try {
      const used = idempotency && (usedHere.get(idempotency.key) ?? known.usedKeys.get(idempotency.key));
      if (used !== undefined && used.atMs + IDEMPOTENCY_TTL_MS > nowMs) {
        if (used.request !== idempotency?.request) throw new AppError('idempotency_mismatch');
        answers.push(() => done.resolve(JSON.parse(used.answer) as WriteResult[]));
        continue;
      }
      const own = new Map<string, Change>();
      const results: WriteResult[] = [];
      let added = NOTHING;
      const former = (name: string) => (own.get(name) ?? changes.get(name))?.state ?? known.states.get(name);
      let ownSeq = seq;
      for (const [at, write] of writes.entries()) {
        const name = names[at] as string;
        const before = former(name);
        if (!holds(write.precondition, revOf(before)))
          throw preconditionsFailed(writes, at, (other) => revOf(former(names[other] as string)));
        const draft = { seq: ++ownSeq, nowMs, rev: revs[at] as Buffer, keyVersion: cipher.version };
        const { state, text, result } = applied(write, name, before, draft);
        const change = { state, text, entries: indexing.entriesOf(state, name, text) };
        own.set(name, change);
        if (change.entries !== undefined) uniquely.write(name, keptApart(change.entries));
        if (quota !== undefined) added = sumOf(added, addedBy(before, change.state));
        results.push(result);
      }
      const seals = writes.filter(({ kind }) => kind === 'put').length;
      if (seals > sealsLeft) throw new AppError('key_exhausted');
      quota?.admit(added);
      uniquely.accept();
      sealsLeft -= seals;
      seq = ownSeq;
      for (const [name, change] of own) changes.set(name, change);
      if (idempotency !== undefined)
        usedHere.set(idempotency.key, { ...idempotency, atMs: nowMs, answer: JSON.stringify(results) });
      answers.push(() => done.resolve(results));
    } catch (error) {
      answers.push(() => done.reject(error));
    }
  }
  const documents = changes
    .entries()
    .map(([name, change]) => ({ ...change, former: known.states.get(name) }));
  return { answers, documents: documents.toArray(), usedKeys: [...usedHere.values()], seq, taken };
}

function revOf(state: DocumentState | undefined): string | undefined {
  return state?.deletedMs === 0 ? state.rev.toString('hex') : undefined;
}

/** Entries in those unique indexes that enforce something. */
function keptApart(entries: readonly BlindEntries[]): (readonly [BlindIndex, readonly string[]])[] {
  return entries.flatMap(({ index, tokens }) => (isEnforced(index) ? [[index, tokens] as const] : []));
}

function applied(
  write: Write,
  name: string,
  before: DocumentState | undefined,
  { seq, nowMs, rev, keyVersion }: Record<'seq' | 'nowMs' | 'keyVersion', number> & { readonly rev: Buffer },
): { state: DocumentState; text: Buffer | undefined; result: WriteResult } {
  const living = before?.deletedMs === 0 ? before : undefined;
  const common = {
    collection: write.ref.collection,
    id: write.ref.id,
    fileName: Buffer.from(name, 'hex'),
    seq,
    createdSeq: living?.createdSeq ?? seq,
    createdMs: living?.createdMs ?? nowMs,
    rev,
    keyVersion,
  };
  if (write.kind === 'delete') {
    if (living === undefined) throw new AppError('document_not_found');
    const state = { ...common, size: 0, deletedMs: Math.max(1, nowMs) };
    return { state, text: undefined, result: { created: false, metadata: undefined } };
  }
  const metadata = {
    _id: write.ref.id,
    _collection: write.ref.collection,
    _rev: rev.toString('hex'),
    _created: new Date(common.createdMs).toISOString(),
    _updated: new Date(nowMs).toISOString(),
  };
  const text = composeStoredText(metadata, write.content);
  const state = { ...common, size: text.length + SEAL_OVERHEAD_BYTES, deletedMs: 0 };
  return { state, text, result: { created: living === undefined, metadata } };
}

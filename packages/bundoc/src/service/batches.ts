import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { ownContentOf } from '../crypto/stored-text.ts';
import type { BatchOperation } from '../documents/operation.ts';
import { patchContentInTurns } from '../documents/patch/patch-content.ts';
import {
  COMMIT_BYTES_MAX,
  type Precondition,
  type ProjectStore,
  type StoredDocument,
  type Write,
  type WriteResult,
} from '../engine/port/port.ts';
import { type FailedWrite, PreconditionsFailed, preconditionHolds } from '../engine/port/precondition.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';
import type { InstanceLease } from '../projects/project-instance.ts';
import type { Work } from '../work/work.ts';
import type { WorkOptions } from './documents.ts';
import { answeredBefore, PATCH_TRIES_MAX } from './patching.ts';

/** Holds for no document, so the store reports the write with the current revision. */
const NEVER: Precondition = { kind: 'revision', anyOf: [] };

/** Documents read, and held, at a time for the patches of one batch. */
const READ_TOGETHER = 32;

/** Writes several documents of a project, all or none. Arguments are validated at the edge. */
export class Batches {
  readonly #instances: Pick<InstanceManager, 'acquire'>;
  readonly #documentBytesMax: number;

  constructor(instances: Pick<InstanceManager, 'acquire'>, documentBytesMax: number) {
    this.#instances = instances;
    this.#documentBytesMax = documentBytesMax;
  }

  /**
   * Runs all operations or none, each on a different document. Patches without a precondition apply to the
   * latest revision, with retries; it yields between them.
   *
   * @param options include the work that the batch is part of.
   * @returns a result for each operation.
   * @throws AppError {@link PreconditionsFailed} with every operation whose precondition does not hold,
   *   `patch_test_failed`, `patch_inapplicable`, `payload_too_large`, `overloaded`, and those of the store.
   */
  async run(
    project: string,
    operations: readonly BatchOperation[],
    options: WorkOptions,
  ): Promise<readonly WriteResult[]> {
    using lease = await this.#acquire(project, operations);
    for (let tries = 0; tries < PATCH_TRIES_MAX; tries++) {
      try {
        return await this.#commit(lease.store, operations, options);
      } catch (error) {
        if (!(error instanceof PreconditionsFailed)) throw error;
        const asked = error.failed.filter((failed) => !isRace(operations, failed));
        if (asked.length > 0) throw new PreconditionsFailed(asked);
      }
    }
    throw new AppError('overloaded', { detail: 'the documents change too often' });
  }

  /** Creates the project if necessary, but never for operations that cannot succeed in an empty one. */
  async #acquire(project: string, operations: readonly BatchOperation[]): Promise<InstanceLease> {
    const failed = operations.flatMap(({ op, precondition }, index): FailedWrite[] =>
      op === 'put' && preconditionHolds(precondition, undefined) ? [] : [{ index, rev: undefined }],
    );
    if (failed.length === 0) return await this.#instances.acquire(project, 'create');
    const lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new PreconditionsFailed(failed);
    return lease;
  }

  async #commit(
    store: ProjectStore,
    operations: readonly BatchOperation[],
    options: WorkOptions,
  ): Promise<readonly WriteResult[]> {
    let writes: readonly Write[];
    try {
      writes = await this.#planWrites(store, operations, options.work);
    } catch (error) {
      const [first] = operations;
      if (first === undefined || !hasCode(error, 'patch_test_failed', 'patch_inapplicable')) throw error;
      return await answeredBefore(store, first.ref, options, error);
    }
    return await store.commit(writes, options);
  }

  async #planWrites(
    store: ProjectStore,
    operations: readonly BatchOperation[],
    work: Work,
  ): Promise<readonly Write[]> {
    if (operations.every(isPlain)) return operations.map(plainWrite);
    const writes: Write[] = [];
    let bytes = 0;
    for (let at = 0; at < operations.length; at += READ_TOGETHER) {
      const some = operations.slice(at, at + READ_TOGETHER);
      const documents = await work.outside(() =>
        Promise.all(some.map(async (one) => (isPlain(one) ? undefined : await store.get(one.ref)))),
      );
      for (const [n, operation] of some.entries()) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        const write = isPlain(operation)
          ? plainWrite(operation)
          : await this.#patched(operation, documents[n], work);
        bytes += write.kind === 'put' ? write.content.bytes.length : 0;
        // No store accepts more, so a result that patches have grown too large is not held at all.
        if (bytes > COMMIT_BYTES_MAX) throw new AppError('payload_too_large');
        work.hold(bytes);
        writes.push(write);
      }
    }
    work.leave();
    return writes;
  }

  async #patched(
    { ref, patch, precondition }: PatchOperation,
    document: StoredDocument | undefined,
    work: Work,
  ): Promise<Write> {
    const rev = document?.metadata._rev;
    if (document === undefined || rev === undefined || !preconditionHolds(precondition, rev))
      return { kind: 'delete', ref, precondition: NEVER };
    const own = ownContentOf(document.text, ref);
    const content = await patchContentInTurns(own, patch, this.#documentBytesMax, work);
    return { kind: 'put', ref, content, precondition: { kind: 'revision', anyOf: [rev] } };
  }
}

type PatchOperation = Extract<BatchOperation, { op: 'patch' }>;
type PlainOperation = Exclude<BatchOperation, PatchOperation>;

function isPlain(operation: BatchOperation): operation is PlainOperation {
  return operation.op !== 'patch';
}

function plainWrite(operation: PlainOperation): Write {
  const { ref, precondition } = operation;
  return operation.op === 'put'
    ? { kind: 'put', ref, content: operation.content, precondition }
    : { kind: 'delete', ref, precondition };
}

/** The document of a patch without a revision has changed since it was read, so the patch can be retried. */
function isRace(operations: readonly BatchOperation[], { index, rev }: FailedWrite): boolean {
  const operation = operations[index];
  if (operation?.op !== 'patch' || rev === undefined) return false;
  return operation.precondition.kind === 'none' || operation.precondition.kind === 'present';
}

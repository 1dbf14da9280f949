import { join } from 'node:path';
import type { Clock } from '@bundoc/shared/clock';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../../cipher/project-cipher.ts';
import type { Turns } from '../../turns.ts';
import { TOMBSTONE_TTL_MS } from '../port.ts';
import type { Catalog } from './catalog.ts';
import type { CollectionIndexes } from './collection-indexes.ts';
import { type Disk, replaceFile } from './disk.ts';
import type { FileWriter } from './file-writer.ts';
import { encodeIndexes, INDEX_FILE } from './index-file.ts';
import type { Journal } from './journal.ts';
import type { SealBudget } from './seal-budget.ts';
import { CATALOG_FILE, encodeSnapshot } from './snapshot.ts';
import type { UsedKeys } from './used-keys.ts';

export interface EmbeddedLimits {
  /** Size of a new journal segment, bytes. */
  readonly segmentBytes: number;
  /** Journal bytes after which a checkpoint begins, unless the catalog has more: a snapshot is of all of it. */
  readonly checkpointBytes: number;
}

/** How many times its checkpoint's size the journal may have before commits wait for one. */
const JOURNAL_LONG = 4;
/** What a document takes in a snapshot, about. */
const SNAPSHOT_ENTRY_BYTES = 120;
const CHECKPOINT_PAUSE_MS = 1_000;

export interface CheckpointsOptions {
  readonly project: string;
  /** The project's folder; `tmp` lies in it. */
  readonly directory: string;
  readonly disk: Disk;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  readonly limits: EmbeddedLimits;
}

/** What a checkpoint makes durable. */
export interface CheckpointedParts {
  readonly catalog: Catalog;
  readonly journal: Journal;
  readonly usedKeys: UsedKeys;
  readonly writer: FileWriter;
  readonly seals: SealBudget;
}

/** The store that they are made for. */
export interface CheckpointedStore {
  readonly indexes: Pick<CollectionIndexes, 'whole' | 'builds'>;
  /** In which everybody appends to the journal, and makes visible what was appended. */
  readonly journalTurn: Turns;
  /** Whether there is a file of indexes to be replaced, or removed. */
  readonly hasIndexFile: boolean;
  /** Whether it takes no more writes; a checkpoint that breaks off ends them. */
  readonly failed: () => boolean;
  readonly fail: (error: unknown) => void;
}

/** Makes document files, catalog and indexes durable now and then, one checkpoint at a time, so that the journal can begin again. */
export class Checkpoints {
  readonly #options: CheckpointsOptions;
  readonly #parts: CheckpointedParts;
  readonly #store: CheckpointedStore;
  #running: Promise<void> | undefined;
  #hasIndexFile: boolean;
  /** What the file of indexes is of. */
  #storedIndexes: string | undefined;
  /** None begins by itself before this moment (monotonic). */
  #againMs = 0;
  #isGivenUp = false;

  constructor(options: CheckpointsOptions, parts: CheckpointedParts, store: CheckpointedStore) {
    this.#options = options;
    this.#parts = parts;
    this.#store = store;
    this.#hasIndexFile = store.hasIndexFile;
  }

  /** A checkpoint is due. */
  get isDue(): boolean {
    return !this.#store.failed() && this.#parts.journal.liveBytes > this.#checkpointBytes();
  }

  /** Begins a checkpoint, and waits for it when the journal has become much too long. */
  async keepJournalShort(): Promise<void> {
    const nowMs = this.#options.clock.monotonic();
    if (nowMs < this.#againMs) return;
    const checkpoint = this.run().catch((error: unknown) => {
      if (!hasCode(error, 'disk_full') && !this.#isGivenUp) this.#store.fail(error);
      // Each try ends a segment, which a full disk has no room for.
      this.#againMs = nowMs + CHECKPOINT_PAUSE_MS;
    });
    if (this.#parts.journal.liveBytes > JOURNAL_LONG * this.#checkpointBytes()) await checkpoint;
  }

  /** A snapshot is of the whole catalog: it is not worth its writing before the journal has become as long. */
  #checkpointBytes(): number {
    return Math.max(this.#options.limits.checkpointBytes, this.#parts.catalog.size * SNAPSHOT_ENTRY_BYTES);
  }

  /** Makes a checkpoint, or waits for the one that is under way. */
  run(): Promise<void> {
    this.#running ??= this.#checkpoint().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Whatever is under way ends with its present step, and waits for nothing more: without it, the journal is replayed. For a store that closes. */
  giveUp(): void {
    this.#isGivenUp = true;
    this.#parts.writer.giveUpFlushes();
  }

  /** Resolves once none is under way. */
  async settled(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  /**
   * Files durable, then a snapshot that names the first segment that is still needed, then the segments before it are free. The
   * snapshot is taken while commits go on; those are in the segments that it names.
   */
  async #checkpoint(): Promise<void> {
    if (this.#store.failed()) throw new AppError('storage_unavailable');
    const { disk, directory, cipher, project, clock } = this.#options;
    const { catalog, journal, writer, usedKeys } = this.#parts;
    const purged = catalog.purge(clock.now() - TOMBSTONE_TTL_MS);
    if (purged === 0 && journal.liveBytes === 0) return this.#storeIndexes(catalog.lastSeq);
    // It could not end, and every rotation takes another segment.
    if (writer.full) throw new AppError('disk_full');
    const head = await this.#store.journalTurn.run(async () => {
      const start = await journal.beginCheckpoint();
      const { lastSeq, purgedSeq } = catalog;
      return { start, lastSeq, purgedSeq, seals: this.#parts.seals.settle() };
    });
    await writer.flush();
    const snapshot = this.#untilGivenUp(encodeSnapshot(project, cipher, head, usedKeys, catalog));
    await replaceFile(disk, join(directory, 'tmp'), join(directory, CATALOG_FILE), snapshot);
    const { checkpointBytes, segmentBytes } = this.#options.limits;
    const keep = 2 + Math.ceil(checkpointBytes / segmentBytes);
    await this.#store.journalTurn.run(() => journal.recycle(head.start.firstLive, keep));
    await this.#storeIndexes(head.lastSeq);
  }

  /** A snapshot may take long, too. What is there of it is removed. */
  async *#untilGivenUp(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      if (this.#isGivenUp) throw new Error('the store is closing');
      yield piece;
    }
  }

  /**
   * Keeps the indexes, so that the next opening need not read all documents. While some are being built, the former file stays: it says up
   * to where it is right. A full disk is no failure: the file is worth nothing but time.
   */
  async #storeIndexes(asOf: number): Promise<void> {
    const { disk, directory, cipher, project } = this.#options;
    const path = join(directory, INDEX_FILE);
    const whole = this.#store.indexes.whole;
    if (whole === undefined) return;
    const state = `${asOf} ${cipher.version} ${this.#store.indexes.builds}`;
    if (state === this.#storedIndexes) return;
    if (whole.length > 0)
      await replaceFile(
        disk,
        join(directory, 'tmp'),
        path,
        encodeIndexes(project, cipher, asOf, whole),
      ).catch((error: unknown) => {
        if (!hasCode(error, 'disk_full')) throw error;
      });
    else if (this.#hasIndexFile) await disk.remove(path);
    this.#hasIndexFile = whole.length > 0;
    this.#storedIndexes = state;
  }
}

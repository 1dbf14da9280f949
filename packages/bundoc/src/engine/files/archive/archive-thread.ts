import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { startThread } from '@bundoc/shared/threads/start-thread';
import type { LogEnd } from '../log/log-api.ts';
import type {
  ArchiveAnswer,
  ArchiveQuestion,
  ArchiveReport,
  ArchiveThreadData,
  FromArchiveThread,
  ToArchiveThread,
} from './archive-messages.ts';

/** A thread that ended is started again after this time. */
const RESTART_MS = 10_000;
/** An upload in progress is given up after this time when the service closes. */
const CLOSE_MS = 2_000;

/** The running engine, as the archive asks it. */
export interface ArchivedEngine {
  logEnd(from: number | undefined): LogEnd;
  keepFrom(segment: number): void;
}

export interface ArchiveThreadOptions extends ArchiveThreadData {
  readonly engine: ArchivedEngine;
  /** Projects that changed; the thread takes them. */
  readonly changed: Set<string>;
  readonly clock: Clock;
  readonly logger: Logger;
}

const none = () => 0;
const unknown = () => Number.NaN;
/** For metrics of a folder without an archive. */
export const NO_ARCHIVE = {
  archiveAgeS: unknown,
  archiveRoundAgeS: unknown,
  archiveDrillAgeS: unknown,
  archiveObjects: none,
  archiveFailures: none,
  archiveChains: none,
  archiveFailedBases: none,
  archiveBasesWaiting: none,
};

/** Ships the data folder to the archive in a thread, until it is disposed of. Writes never wait for it. */
export class ArchiveThread implements AsyncDisposable {
  readonly #options: ArchiveThreadOptions;
  readonly #data: ArchiveThreadData;
  #worker: Worker;
  #isClosing = false;
  #completeAtMs: number;
  #report: ArchiveReport | undefined;
  #isFailing = false;
  readonly #counts = { objects: 0, failures: 0, chains: 0, failedBases: 0 };

  constructor(options: ArchiveThreadOptions) {
    const { setting, environment, dataDir, projectsDir, tmp, storageId } = options;
    this.#options = options;
    this.#data = { setting, environment, dataDir, projectsDir, tmp, storageId };
    this.#completeAtMs = options.clock.now();
    this.#worker = this.#start();
  }

  /** For metrics. */
  get counts() {
    const { clock } = this.#options;
    const secondsSince = (ms: number | undefined) =>
      ms === undefined ? Number.NaN : Math.max(0, clock.now() - ms) / 1_000;
    return {
      archiveAgeS: () => secondsSince(this.#completeAtMs),
      archiveRoundAgeS: () => secondsSince(this.#report?.roundBeganMs),
      archiveDrillAgeS: () => secondsSince(this.#report?.drilledMs),
      archiveObjects: () => this.#counts.objects,
      archiveFailures: () => this.#counts.failures,
      archiveChains: () => this.#counts.chains,
      archiveFailedBases: () => this.#counts.failedBases,
      archiveBasesWaiting: () => this.#report?.basesWaiting ?? 0,
    };
  }

  #start(): Worker {
    const worker = startThread(import.meta.url, './archive-worker', {
      name: 'archive',
      workerData: this.#data,
    });
    worker.unref();
    worker.on('message', (message: FromArchiveThread) => {
      if ('report' in message) this.#take(message.report);
      else {
        const answer: ToArchiveThread = { id: message.id, answer: this.#answer(message) };
        worker.postMessage(answer);
      }
    });
    worker.on('error', (err) => this.#options.logger.error({ err }, 'the thread of the archive has failed'));
    worker.on('exit', () => void this.#restart());
    return worker;
  }

  async #restart(): Promise<void> {
    if (this.#isClosing) return;
    this.#counts.failures++;
    await setTimeout(RESTART_MS, undefined, { ref: false });
    if (!this.#isClosing) this.#worker = this.#start();
  }

  #answer(question: ArchiveQuestion): ArchiveAnswer {
    const { changed, engine } = this.#options;
    switch (question.ask) {
      case 'log end':
        return engine.logEnd(question.from);
      case 'changed projects': {
        const projects = [...changed];
        changed.clear();
        return projects;
      }
      case 'shipped':
        engine.keepFrom(question.segment);
        return undefined;
    }
  }

  #take(report: ArchiveReport): void {
    const { logger } = this.#options;
    const { completeAtMs, error, failed } = report;
    this.#report = report;
    this.#counts.objects += report.objects;
    this.#counts.failedBases += failed.length;
    if (report.isRoot) {
      this.#counts.chains++;
      logger.warn(
        'the archive begins a new chain: moments since the last object can be restored once a round is complete',
      );
    }
    if (failed.length > 0)
      logger.error(
        { projects: failed },
        'folders of projects could not be read: the archive lacks their bases',
      );
    if (completeAtMs !== undefined) this.#completeAtMs = completeAtMs;
    if (error === undefined && this.#isFailing) logger.info('the archive can be written again');
    if (error !== undefined) {
      this.#counts.failures++;
      if (!this.#isFailing) logger.error({ reason: error }, 'nothing is shipped to the archive');
    }
    this.#isFailing = error !== undefined;
  }

  /** What was not shipped by then is shipped after the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    const exited = once(this.#worker, 'exit').catch(() => undefined);
    const message: ToArchiveThread = 'close';
    this.#worker.postMessage(message);
    await Promise.race([exited, setTimeout(CLOSE_MS, undefined, { ref: false })]);
    await this.#worker.terminate();
  }
}

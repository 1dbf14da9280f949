// How far a run of tests is, and about how long it still takes, from what each file took before.

import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/** What each file took on two processors, seconds; files that are not listed took less than `LISTED_MIN`. */
export const DURATIONS = 'test/support/durations.json';
/** The same of the last run on this machine. */
export const LAST_RUN = 'node_modules/.cache/bundoc-dev/test-durations.json';
/** Files that take less are not listed, seconds. */
export const LISTED_MIN = 5;

/**
 * The stages by the `groupOrder` of their Vitest projects: what is tested, how many files run at a time
 * beyond one for each processor, and what a file takes that is not listed, seconds.
 */
const STAGES = [
  { title: 'unit tests', more: 0, usual: 1 },
  { title: 'running services', more: 3, usual: 2 },
];
/** The pace of a run counts once this much was expected, seconds. */
const PACE_FROM_S = 20;

/**
 * What each file takes, seconds, by its id.
 * @param {string} root
 * @returns {Record<string, number>}
 */
export function readDurations(root) {
  return { ...readJson(join(root, DURATIONS)), ...readJson(join(root, LAST_RUN)) };
}

/** @param {string} path */
function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return {};
  }
}

/**
 * The id of a file in a Vitest project: several projects may run one file.
 * @param {string} root
 * @param {string} project
 * @param {string} path
 */
export function testFileId(root, project, path) {
  return `${project} ${relative(root, path)}`;
}

/** @typedef {{ id: string, stage: number, ended: boolean, seconds: number }} File */

export class Stages {
  /** @type {Map<string, File>} */
  #files;
  #numbers;
  #processors;
  #nowMs;
  #startMs;
  #counts = { passed: 0, failed: 0, skipped: 0 };

  /**
   * @param {readonly { id: string, stage: number }[]} files
   * @param {{ durations: Record<string, number>, processors: number, nowMs: () => number }} options
   */
  constructor(files, { durations, processors, nowMs }) {
    this.#files = new Map(
      files.map(({ id, stage }) => {
        const seconds = durations[id] ?? STAGES[stage]?.usual ?? 1;
        return [id, { id, stage, ended: false, seconds }];
      }),
    );
    this.#numbers = [...new Set(files.map(({ stage }) => stage))].sort((a, b) => a - b);
    this.#processors = processors;
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
  }

  /** What a user reads first. */
  announcement() {
    const files = [...this.#files.values()];
    const many = this.#processors === 1 ? 'one processor' : `${this.#processors} processors`;
    return [
      `${files.length} files of tests, about ${minutes(this.#expected(files))} on ${many}.`,
      'A part of them: npm run test:quick (the unit tests), or npm run test:one -- <file or folder>',
    ].join('\n');
  }

  /** @param {'passed' | 'failed' | 'skipped' | 'pending'} state of a test that has ended */
  tested(state) {
    if (state !== 'pending') this.#counts[state] += 1;
  }

  /**
   * @param {string} id of a file that has ended
   * @returns {string | undefined} a line once its stage has ended
   */
  ended(id) {
    const file = this.#files.get(id);
    if (file === undefined || file.ended) return undefined;
    file.ended = true;
    const ofStage = this.#of(file.stage);
    if (!ofStage.every(({ ended }) => ended)) return undefined;
    return `${this.#name(file.stage)}: all ${ofStage.length} files, ${this.#sum()}`;
  }

  /** One line: the stage, its files, the tests so far, and about how long is left of the whole. */
  progress() {
    const stage = this.#numbers.find((number) => this.#of(number).some(({ ended }) => !ended));
    if (stage === undefined) return this.#sum();
    const ofStage = this.#of(stage);
    const done = ofStage.filter(({ ended }) => ended).length;
    return `${this.#name(stage)}: ${done} of ${ofStage.length} files, ${this.#sum()}, about ${minutes(this.#left())} left`;
  }

  /** @param {number} stage */
  #of(stage) {
    return [...this.#files.values()].filter((file) => file.stage === stage);
  }

  /** @param {number} stage */
  #name(stage) {
    const place = this.#numbers.indexOf(stage) + 1;
    return `stage ${place} of ${this.#numbers.length}, ${STAGES[stage]?.title ?? 'tests'}`;
  }

  #sum() {
    const { passed, failed, skipped } = this.#counts;
    return `${passed} passed, ${failed} failed, ${skipped} skipped`;
  }

  /** @returns {number} seconds at the pace of this run */
  #left() {
    const files = [...this.#files.values()];
    const done = this.#expected(files.filter(({ ended }) => ended));
    const left = this.#expected(files.filter(({ ended }) => !ended));
    const tookS = (this.#nowMs() - this.#startMs) / 1_000;
    return done < PACE_FROM_S ? Math.max(0, left + done - tookS) : (left * tookS) / done;
  }

  /**
   * @param {readonly File[]} files
   * @returns {number} seconds from the first to the last of these, with several at a time
   */
  #expected(files) {
    let seconds = 0;
    for (const file of files) seconds += file.seconds / (this.#processors + (STAGES[file.stage]?.more ?? 0));
    return seconds;
  }
}

/** @param {number} seconds */
function minutes(seconds) {
  if (seconds < 90) return `${Math.max(10, Math.ceil(seconds / 10) * 10)} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}

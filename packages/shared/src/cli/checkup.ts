import { access, constants, stat, statfs } from 'node:fs/promises';
import { lineOf } from '../runtime/error-line.ts';
import { printable } from '../runtime/printable.ts';

/** The result of a check of `doctor`. `warn`: it works, but not for everyone, or not for long. */
export type Verdict = 'ok' | 'warn' | 'fail';

export interface Finding {
  readonly check: string;
  readonly verdict: Verdict;
  /** What was found. */
  readonly found: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** The findings of `doctor`, one per line. */
export class Checkup {
  readonly #findings: Finding[] = [];

  get findings(): readonly Finding[] {
    return this.#findings;
  }

  get hasFailed(): boolean {
    return this.#findings.some(({ verdict }) => verdict === 'fail');
  }

  ok(check: string, found: string): void {
    this.#findings.push({ check, verdict: 'ok', found });
  }

  warn(check: string, found: string, remedy: string): void {
    this.#findings.push({ check, verdict: 'warn', found, remedy });
  }

  fail(check: string, found: string, remedy: string): void {
    this.#findings.push({ check, verdict: 'fail', found, remedy });
  }

  /** Runs one check; an error becomes its finding. @returns undefined when it threw. */
  async try<T>(check: string, remedy: string, look: () => Promise<T> | T): Promise<T | undefined> {
    try {
      return await look();
    } catch (error) {
      this.fail(check, lineOf(error), remedy);
      return undefined;
    }
  }

  lines(): string[] {
    const width = Math.max(0, ...this.#findings.map(({ check }) => check.length));
    return this.#findings.map(({ check, verdict, found, remedy }) =>
      printable(
        `${verdict.padEnd(4)}  ${check.padEnd(width)}  ${found}${remedy === undefined ? '' : `. To do: ${remedy}`}`,
      ),
    );
  }
}

const MIB = 1_048_576;
/** Free bytes below which a disk is a warning, and below which it is a failure. */
const FREE_WARN_BYTES = 1_024 * MIB;
const FREE_FAIL_BYTES = 128 * MIB;

/** Checks that a folder exists, is writable and has free space. */
export async function checkDisk(checkup: Checkup, folder: string, variable: string): Promise<void> {
  try {
    if (!(await stat(folder)).isDirectory()) {
      checkup.fail('disk', `${folder} is not a folder`, `name the data folder in ${variable}`);
      return;
    }
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    const { bavail, bsize } = await statfs(folder);
    checkFree(checkup, folder, bavail * bsize);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      checkup.fail(
        'disk',
        `there is no folder ${folder}`,
        `name the data folder in ${variable}, or start the service once`,
      );
    else if (code === 'EACCES')
      checkup.fail(
        'disk',
        `${folder} is not writable`,
        'run as the user of the service, or give that user the folder',
      );
    else checkup.fail('disk', lineOf(error), `check ${folder} (${variable})`);
  }
}

/** Judges the free bytes of a data folder. */
export function checkFree(checkup: Checkup, folder: string, freeBytes: number): void {
  const found = `${folder} has ${Math.round(freeBytes / MIB)} MiB free`;
  const remedy = 'free space, or move the folder to a larger disk';
  if (freeBytes < FREE_FAIL_BYTES) checkup.fail('disk', found, remedy);
  else if (freeBytes < FREE_WARN_BYTES) checkup.warn('disk', found, remedy);
  else checkup.ok('disk', found);
}

/** Seconds by which clocks may differ: beyond it a token that was just issued is refused. */
const SKEW_FAIL_S = 60;
const SKEW_WARN_S = 5;

/** Compares this machine's clock with that of a service, to the second of its `Date` header. */
export function checkClock(
  checkup: Checkup,
  name: string,
  dates: { readonly service: string | undefined; readonly beforeMs: number; readonly afterMs: number },
): void {
  const serviceMs = Date.parse(dates.service ?? '');
  if (Number.isNaN(serviceMs)) {
    checkup.warn('clock', `${name} sends no date`, 'ask the service itself, not a proxy');
    return;
  }
  // `Date` is truncated to the second, and the answer took time to arrive.
  const behindMs = dates.beforeMs - (serviceMs + 1_000);
  const aheadMs = serviceMs - dates.afterMs;
  const skewS = Math.ceil(Math.max(0, behindMs, aheadMs) / 1_000);
  const way = aheadMs > 0 ? 'ahead of' : 'behind';
  const found = skewS === 0 ? `${name} and this machine agree` : `${name} is ${skewS} s ${way} this machine`;
  const remedy = 'synchronize both clocks by NTP';
  if (skewS >= SKEW_FAIL_S) checkup.fail('clock', found, remedy);
  else if (skewS >= SKEW_WARN_S) checkup.warn('clock', found, remedy);
  else checkup.ok('clock', found);
}

/**
 * Compares the versions of two sides.
 *
 * @param theirs undefined when a service does not report it.
 */
export function checkVersions(
  checkup: Checkup,
  ours: { readonly name: string; readonly version: string },
  theirs: { readonly name: string; readonly version: string | undefined },
): void {
  const remedy = `upgrade both to the same version`;
  if (theirs.version === undefined)
    checkup.warn(
      'version',
      `${ours.name} is ${ours.version}; ${theirs.name} does not report its version`,
      remedy,
    );
  else if (theirs.version === ours.version)
    checkup.ok('version', `${ours.name} and ${theirs.name} are ${ours.version}`);
  else
    checkup.warn('version', `${ours.name} is ${ours.version}, ${theirs.name} is ${theirs.version}`, remedy);
}

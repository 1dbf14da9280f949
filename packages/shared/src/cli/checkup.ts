import { access, constants } from 'node:fs/promises';
import { TOKEN_AHEAD_S_MAX } from '../contract/tokens.ts';
import { freeBytesOf } from '../files/free-bytes.ts';
import { modeOpenToOthers } from '../files/open-to-others.ts';
import { formatError } from '../logs/error-line.ts';
import { printable } from '../logs/printable.ts';
import { ConfigError, type Environment, findUnknown, type KnownVariables } from '../process/config.ts';
import { type DatedAnswer, skewMs } from '../runtime/clock-skew.ts';
import { CommandError } from './errors.ts';
import { type JsonOption, print } from './print.ts';

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
  readonly findings: Finding[] = [];

  ok(check: string, found: string): void {
    this.findings.push({ check, verdict: 'ok', found });
  }

  warn(check: string, found: string, remedy: string): void {
    this.findings.push({ check, verdict: 'warn', found, remedy });
  }

  fail(check: string, found: string, remedy: string): void {
    this.findings.push({ check, verdict: 'fail', found, remedy });
  }

  /** Runs one check; an error becomes its finding. @returns undefined when it threw. */
  async try<T>(check: string, remedy: string, look: () => Promise<T> | T): Promise<T | undefined> {
    try {
      return await look();
    } catch (error) {
      const faults = error instanceof ConfigError ? error.faults : [formatError(error)];
      for (const fault of faults) this.fail(check, fault, remedy);
      return undefined;
    }
  }

  /** Adds the findings on another service, whose name precedes those of the checks. */
  add(name: string, { findings }: Checkup): void {
    this.findings.push(...findings.map((finding) => ({ ...finding, check: `${name} ${finding.check}` })));
  }

  /** Each unknown variable is a finding, as it is a warning of every other command. */
  variables(known: KnownVariables, environment: Environment): void {
    findUnknown(known, environment, (sentence) =>
      this.warn('config', sentence, 'correct or remove them (docs/configuration.md)'),
    );
  }

  /** Reads the configuration; each fault becomes a finding. */
  config<T>(read: () => T): T | undefined {
    try {
      const config = read();
      if (!this.findings.some(({ check }) => check === 'config'))
        this.ok('config', 'the variables are valid');
      return config;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const fault of error.faults)
        this.fail('config', fault, 'correct the variable (docs/configuration.md)');
      this.warn(
        'rest',
        'what depends on the variables was not checked',
        'correct them, and run doctor again',
      );
      return undefined;
    }
  }

  /** Whether a check has failed. */
  hasFailed(check: string): boolean {
    return this.findings.some((finding) => finding.check === check && finding.verdict === 'fail');
  }

  /** Prints the findings. @throws CommandError when a check has failed. */
  print(options: JsonOption): void {
    const hasFailed = this.findings.some(({ verdict }) => verdict === 'fail');
    print(options, { ok: !hasFailed, findings: this.findings }, () => this.lines());
    if (hasFailed)
      throw new CommandError('some checks failed: see the lines that begin with "fail"', { exitCode: 1 });
  }

  lines(): string[] {
    const width = Math.max(0, ...this.findings.map(({ check }) => check.length));
    return this.findings.map(({ check, verdict, found, remedy }) => {
      const todo = remedy === undefined ? '' : `. To do: ${remedy}`;
      return printable(`${verdict.padEnd(4)}  ${check.padEnd(width)}  ${found}${todo}`);
    });
  }
}

const MIB = 1_048_576;
/** Free bytes below which a disk is a warning, and below which it is a failure. */
const FREE_WARN_BYTES = 1_024 * MIB;
const FREE_FAIL_BYTES = 128 * MIB;

/**
 * Checks that a folder exists, is writable and has free space.
 *
 * @returns whether it is writable.
 */
export async function checkDisk(
  checkup: Checkup,
  folder: string,
  variable: string,
  check = 'disk',
): Promise<boolean> {
  try {
    await access(`${folder}/.`, constants.R_OK | constants.W_OK | constants.X_OK);
    checkFree(checkup, folder, await freeBytesOf(folder), check);
    return true;
  } catch (error) {
    const faults: Record<string, string> = {
      ENOENT: `there is no folder ${folder}`,
      ENOTDIR: `${folder} is not a folder`,
      EACCES: `${folder} is not writable`,
    };
    const found = faults[(error as NodeJS.ErrnoException).code ?? ''] ?? formatError(error);
    checkup.fail(check, found, `name a folder that the user of the service may write in ${variable}`);
    return false;
  }
}

/** Judges the free bytes of a folder. */
export function checkFree(checkup: Checkup, folder: string, freeBytes: number, check = 'disk'): void {
  const found = `${folder} has ${Math.round(freeBytes / MIB)} MiB free`;
  const remedy = 'free space, or move the folder to a larger disk';
  if (freeBytes < FREE_FAIL_BYTES) checkup.fail(check, found, remedy);
  else if (freeBytes < FREE_WARN_BYTES) checkup.warn(check, found, remedy);
  else checkup.ok(check, found);
}

const SKEW_WARN_S = 5;

/** Compares this machine's clock with that of a service, to the second of its `Date` header. */
export function checkClock(checkup: Checkup, name: string, answer: DatedAnswer): void {
  const ms = skewMs(answer);
  if (ms === undefined) {
    checkup.warn('clock', `${name} sends no date`, 'ask the service itself, not a proxy');
    return;
  }
  const skewS = Math.ceil(Math.abs(ms) / 1_000);
  const way = ms > 0 ? 'ahead of' : 'behind';
  const found = skewS === 0 ? `${name} and this machine agree` : `${name} is ${skewS} s ${way} this machine`;
  const remedy = 'synchronize both clocks by NTP';
  if (skewS >= TOKEN_AHEAD_S_MAX) checkup.fail('clock', found, remedy);
  else if (skewS >= SKEW_WARN_S) checkup.warn('clock', found, remedy);
  else checkup.ok('clock', found);
}

/** Compares the version of this command with that of a service; `theirs` is what it reports. */
export function checkVersions(checkup: Checkup, ours: string, name: string, theirs: unknown): void {
  const other = theirs === undefined ? 'does not report its version' : `is ${String(theirs)}`;
  if (theirs === ours) checkup.ok('version', `this command and ${name} are ${ours}`);
  else
    checkup.warn('version', `this command is ${ours}, ${name} ${other}`, 'upgrade both to the same version');
}

/** How long before its expiry a certificate becomes a warning. */
const CERTIFICATE_WARN_MS = 14 * 86_400_000;

/** Judges when a certificate expires. */
export function checkCertificate(checkup: Checkup, check: string, certificate: string, endsMs: number): void {
  const day = new Date(endsMs).toISOString().slice(0, 10);
  const remedy = 'renew it; the service reads new files automatically';
  const leftMs = endsMs - Date.now();
  if (leftMs <= 0) checkup.fail(check, `${certificate} expired on ${day}`, remedy);
  else if (leftMs < CERTIFICATE_WARN_MS) checkup.warn(check, `${certificate} expires on ${day}`, remedy);
  else checkup.ok(check, `${certificate} is valid until ${day}`);
}

/** Warns when others than its owner may read a file with a secret. */
export function warnOfOpenFile(checkup: Checkup, check: string, path: string): void {
  const mode = modeOpenToOthers(path);
  if (mode !== undefined)
    checkup.warn(check, `others may read ${path} (mode ${mode})`, `run "chmod 600 ${path}"`);
}

import inspector from 'node:inspector';
import { ConfigError } from './config.ts';

/** The facts that decide whether the memory of a process is exposed. */
export interface ProcessFacts {
  readonly execArgv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The URL of the inspector; undefined while it is off. */
  readonly inspectorUrl: string | undefined;
  readonly writesReports: boolean;
}

/**
 * Prefixes of Node options that expose the memory of a process to a debugger, or write parts of it to disk.
 */
const EXPOSING = [
  '--inspect',
  '--debug',
  '--heapsnapshot',
  '--heap-prof',
  '--cpu-prof',
  '--prof',
  '--report',
  '--abort-on-uncaught-exception',
  '--perf',
  '--build-snapshot',
  // The file could contain any of these options.
  '--experimental-config-file',
  '--experimental-default-config-file',
] as const;

/** Values of `NODE_ENV` with which a developer may inspect the memory. All others mean production. */
const DEVELOPMENT: readonly (string | undefined)[] = ['development', 'test'];

/**
 * Refuses to run when a debugger could read the keys in memory, or they could be written to disk: inspector,
 * heap snapshots, profiles, diagnostic reports. With `NODE_ENV` set to `development` or `test` it allows all
 * of these. It prevents mistakes, not attacks: anyone who can choose the options of a process controls it
 * anyway.
 *
 * @throws ConfigError that names every option.
 */
export function refuseMemoryExposure(facts: ProcessFacts): void {
  if (DEVELOPMENT.includes(facts.environment['NODE_ENV'])) return;
  const faults = [
    ...facts.execArgv.filter(isExposing).map((option) => `${parseName(option)}: not in production`),
    ...optionsIn(facts.environment['NODE_OPTIONS'])
      .filter(isExposing)
      .map((option) => `NODE_OPTIONS: ${parseName(option)}: not in production`),
  ];
  // Whatever enabled them.
  if (faults.length === 0 && facts.inspectorUrl !== undefined)
    faults.push('the inspector listens: not in production');
  if (faults.length === 0 && facts.writesReports) faults.push('diagnostic reports are on: not in production');
  if (faults.length > 0)
    throw new ConfigError([
      ...faults,
      'memory holds keys; to debug on a machine without real ones, set NODE_ENV=development',
    ]);
}

/** {@link refuseMemoryExposure} for this process. Afterwards SIGUSR1 no longer starts the inspector. */
export function guardMemory(environment: ProcessFacts['environment']): void {
  const { report } = process;
  refuseMemoryExposure({
    execArgv: process.execArgv,
    environment,
    inspectorUrl: inspector.url(),
    writesReports: report.reportOnFatalError || report.reportOnSignal || report.reportOnUncaughtException,
  });
  // A listener replaces Node's own, which would start the inspector.
  if (!DEVELOPMENT.includes(environment['NODE_ENV'])) process.on('SIGUSR1', () => undefined);
}

function isExposing(option: string): boolean {
  return EXPOSING.some((beginning) => parseName(option).startsWith(beginning));
}

/**
 * The name of an option, without its value, which must not be in messages. Node treats underscores as dashes.
 */
function parseName(option: string): string {
  return (option.split('=')[0] ?? '').replaceAll('_', '-');
}

/** The options in `NODE_OPTIONS`. Node splits at spaces and allows double quotes around any part. */
function optionsIn(nodeOptions: string | undefined): string[] {
  return (nodeOptions ?? '').replaceAll('"', '').split(/\s+/);
}

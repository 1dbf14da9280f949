import inspector from 'node:inspector';
import { ConfigError } from './config.ts';

/** What of a process tells whether its memory may be looked into. */
export interface ProcessFacts {
  readonly execArgv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where the inspector listens; undefined while it does not. */
  readonly inspectorUrl: string | undefined;
  readonly writesReports: boolean;
}

/**
 * Options of Node that open the memory of a process to a debugger, or write parts of it to a disk; beginnings
 * of their names.
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
  // Whose contents could be any of these.
  '--experimental-config-file',
  '--experimental-default-config-file',
] as const;

/** Environments in which a developer may look into the memory; everything else is production. */
const DEVELOPMENT: readonly (string | undefined)[] = ['development', 'test'];

/**
 * Refuses to run where the keys in memory could be read by a debugger or land on a disk: inspector, heap
 * snapshots, profiles, diagnostic reports. Not so with `NODE_ENV` of `development` or `test`. A mistake is
 * what this keeps from happening, not an attacker: anyone who may choose the options of a process may do
 * anything with it.
 *
 * @throws ConfigError that names every option.
 */
export function refuseMemoryExposure(facts: ProcessFacts): void {
  if (DEVELOPMENT.includes(facts.environment['NODE_ENV'])) return;
  const faults = [
    ...facts.execArgv.filter(isExposing).map((option) => `${nameOf(option)}: not in production`),
    ...optionsIn(facts.environment['NODE_OPTIONS'])
      .filter(isExposing)
      .map((option) => `NODE_OPTIONS: ${nameOf(option)}: not in production`),
  ];
  // However they were switched on.
  if (faults.length === 0 && facts.inspectorUrl !== undefined)
    faults.push('the inspector listens: not in production');
  if (faults.length === 0 && facts.writesReports) faults.push('diagnostic reports are on: not in production');
  if (faults.length > 0)
    throw new ConfigError([
      ...faults,
      'memory holds keys; to debug on a machine without real ones, set NODE_ENV=development',
    ]);
}

/** {@link refuseMemoryExposure} for this process; from then on SIGUSR1 starts no inspector. */
export function guardMemory(environment: ProcessFacts['environment']): void {
  const { report } = process;
  refuseMemoryExposure({
    execArgv: process.execArgv,
    environment,
    inspectorUrl: inspector.url(),
    writesReports: report.reportOnFatalError || report.reportOnSignal || report.reportOnUncaughtException,
  });
  // A listener takes the place of Node's own, which would start the inspector.
  if (!DEVELOPMENT.includes(environment['NODE_ENV'])) process.on('SIGUSR1', () => undefined);
}

function isExposing(option: string): boolean {
  return EXPOSING.some((beginning) => nameOf(option).startsWith(beginning));
}

/** Node takes underscores for dashes. The value stays out of messages. */
function nameOf(option: string): string {
  return (option.split('=')[0] ?? '').replaceAll('_', '-');
}

/** Node splits at spaces, and lets double quotes stand around anything. */
function optionsIn(nodeOptions: string | undefined): string[] {
  return (nodeOptions ?? '').replaceAll('"', '').split(/\s+/);
}

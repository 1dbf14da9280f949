import { setTimeout as sleep } from 'node:timers/promises';
import { ANSWERS_WITHIN_MS, trustOf } from './ask-service.ts';
import { type CheckedService, checkService } from './check-service.ts';
import { Checkup } from './checkup.ts';
import { type Command, command, each, Option, wholeNumber } from './command.ts';
import { CommandError } from './errors.ts';
import { type JsonOption, print } from './print.ts';
import { hasEnded, isListening } from './process-state.ts';

const EVERY_MS = 200;
/** The last look has time for an answer, too: its reason is the last word, milliseconds. */
const LAST_LOOK_MS = 1_000;
/** A reason that stays is printed again after this time: the command is not stuck. */
const PRINT_AGAIN_MS = 10_000;
/** A process that was just started passes through reasons that need nobody, milliseconds. */
const STARTS_WITHIN_MS = 2_000;
const PID_MAX = 4_194_304;
const SECONDS_MAX = 86_400;

/** The service of a program, which its command `wait` waits for. */
export interface WaitedService extends Pick<CheckedService, 'name' | 'where' | 'expected' | 'judge'> {
  /** What the options say, else the environment. */
  readonly access: (options: { readonly url?: string; readonly caFile?: string }) => Access;
  /** Where the service itself listens, by its own variables, and the certificate that is trusted there. */
  readonly own: () => { readonly url: string; readonly certFile?: string | undefined };
}

interface Access {
  readonly url?: string | undefined;
  /** Where the URL is from: an option or variables. */
  readonly source: string;
  readonly caFile?: string | undefined;
}

interface WaitOptions extends JsonOption {
  readonly for: 'ready' | 'health';
  readonly pid: readonly number[];
  readonly within?: number;
  /** Where the service listens, unless the URL may be that of a proxy. */
  readonly ownPort: number | undefined;
}

/** Adds the command `wait`. */
export function addWait(program: Command, { access, own, ...service }: WaitedService): void {
  command(
    program,
    'wait',
    'waits until the service is ready, and prints why it is not; exit code 1 when a process of --pid has ended',
  )
    .option('--url <url>', 'of the service; by default where its own variables say')
    .option('--ca-file <file>', 'the authority of its certificate; by default those of the system')
    .addOption(
      new Option('--for <state>', 'the answer of /ready or of /health')
        .choices(['ready', 'health'])
        .default('ready'),
    )
    .option(
      '--pid <pid>',
      'fail when this process has ended; may be repeated',
      each(wholeNumber(1, PID_MAX)),
      [],
    )
    .option('--within <seconds>', 'fail after this time', wholeNumber(1, SECONDS_MAX))
    .action(async (options) => {
      const { url: named, source, caFile } = access(options);
      const { url, certFile } = named === undefined ? own() : { url: named };
      const parsed = URL.parse(url);
      if (parsed === null || !/^https?:$/.test(parsed.protocol))
        throw new CommandError(`"${url}" (${source}) is not an http or https URL`);
      const port = Number(parsed.port || (parsed.protocol === 'https:' ? 443 : 80));
      const ownPort = named === undefined ? port : undefined;
      const trust = await trustOf(caFile, certFile);
      await waitFor(program.name(), { ...service, url, source, trust }, { ...options, ownPort });
    });
}

/**
 * Waits until a service is ready, and prints on standard error why it is not: at once, when the reason
 * changes, and every 10 seconds. With `--pid`, it prints a reason that lasts for two seconds, and one of
 * these processes must listen: an older service on the same port is not taken for the one that was just
 * started.
 *
 * @throws CommandError with exit code 1 when a process has ended, or the time is over.
 */
async function waitFor(
  program: string,
  service: CheckedService & Pick<Access, 'source'>,
  options: WaitOptions,
): Promise<void> {
  const place = `${service.url} (${service.source})`;
  const startMs = performance.now();
  const endMs = startMs + (options.within ?? Number.POSITIVE_INFINITY) * 1_000;
  const withinMs = () =>
    Math.ceil(Math.min(ANSWERS_WITHIN_MS, Math.max(LAST_LOOK_MS, endMs - performance.now())));
  const lastsMs = options.pid.length > 0 ? STARTS_WITHIN_MS : 0;
  let found: string | undefined;
  let foundMs = 0;
  let said: string | undefined;
  let saidMs = 0;
  let answered: string | undefined;
  const asked = `; asked ${place}; "${program} doctor" checks more`;
  for (;;) {
    const { reason, isAnswer } = await lookAt({ ...service, withinMs }, options);
    if (isAnswer) answered = reason;
    // A service that has ended refuses connections. What it said before tells more.
    const before = answered === undefined || isAnswer ? '' : `; before that: ${answered}`;
    await requireRunning(options.pid, reason, before + asked);
    const nowMs = performance.now();
    if (reason === undefined) {
      const seconds = Number(((nowMs - startMs) / 1_000).toFixed(1));
      const state = options.for === 'ready' ? 'ready' : 'alive';
      print(options, { status: state, waited_seconds: seconds }, () => [`${service.name} is ${state}`]);
      return;
    }
    if (nowMs >= endMs)
      throw new CommandError(`not within ${options.within} s: ${reason}${before}${asked}`, { exitCode: 1 });
    if (reason !== found) [found, foundMs] = [reason, nowMs];
    if (nowMs - foundMs >= lastsMs && (reason !== said || nowMs - saidMs >= PRINT_AGAIN_MS)) {
      console.error(`${program}: waiting for ${place}: ${reason}`);
      said = reason;
      saidMs = nowMs;
    }
    await sleep(EVERY_MS);
  }
}

/** @param more what the service answered last, and where it was asked. */
async function requireRunning(
  pids: readonly number[],
  reason: string | undefined,
  more: string,
): Promise<void> {
  for (const pid of pids)
    if (await hasEnded(pid)) {
      const other = reason === undefined ? '; what answers is another process' : '';
      throw new CommandError(`process ${pid} has ended: its log says why${other}${more}`, { exitCode: 1 });
    }
}

interface Look {
  /** Why the service is not what is waited for; undefined when it is. */
  readonly reason: string | undefined;
  /** Whether it has answered. */
  readonly isAnswer: boolean;
}

async function lookAt(service: CheckedService, options: WaitOptions): Promise<Look> {
  const checkup = new Checkup();
  const isAlive = await checkService(checkup, service);
  const counts = new Set(options.for === 'ready' ? ['url', 'tls', 'ready'] : isAlive ? [] : ['url', 'tls']);
  const fault = checkup.findings.find(({ check, verdict }) => verdict === 'fail' && counts.has(check));
  if (fault !== undefined) return { reason: `${fault.found}. To do: ${fault.remedy}`, isAnswer: isAlive };
  const listening = await Promise.all(options.pid.map((pid) => isListening(pid, options.ownPort)));
  if (listening.length > 0 && listening.every((one) => one === false))
    return {
      reason: `another process answers at ${service.url}: none of those of --pid listens yet`,
      isAnswer: false,
    };
  return { reason: undefined, isAnswer: true };
}

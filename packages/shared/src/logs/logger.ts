import { type DestinationStream, type Logger, type LoggerOptions as LoggerOptionsOfPino, pino } from 'pino';
import { type Counted, CountedLines } from './counted-lines.ts';
import { reasonOf, serializeError } from './log-error.ts';
import { type LogOutput, standardOutput } from './log-output.ts';

export type { Logger } from 'pino';

export interface LoggerOptions {
  readonly service: 'bunkms' | 'bundoc';
  readonly level: string;
  /** The destination of lines; standard output unless a test reads them. */
  readonly destination?: DestinationStream;
}

/** Pino's numbers of the levels whose repetitions are counted: `warn` and `error`. */
const REPEATED_LEVELS: ReadonlySet<number> = new Set([40, 50]);

/** The error of a call such as `logger.warn({ err: error }, 'it failed')`. */
function errorOf(args: readonly unknown[]): unknown {
  const [first] = args;
  if (first instanceof Error) return first;
  return typeof first === 'object' && first !== null ? (first as { err?: unknown }).err : undefined;
}

/**
 * Puts the reason of a fault into its message. A repeated fault, with the same message and members, is logged
 * once a minute. Its repetitions are counted.
 */
function explainFaults(
  repeated: CountedLines,
): NonNullable<NonNullable<LoggerOptionsOfPino['hooks']>['logMethod']> {
  return function (args, method, level) {
    const error = errorOf(args);
    if (error === undefined) return method.apply(this, args);
    const [first, event] = args as unknown as [object, string | undefined];
    const msg = event === undefined ? reasonOf(error) : `${event}: ${reasonOf(error)}`;
    const { err: _, ...members } = first instanceof Error ? { err: first } : (first as { err: unknown });
    const write = (more: object, text: string) => method.call(this, { ...members, ...more }, text);
    const tellLater = (counted: Counted) => write(counted, `${msg} (repeated)`);
    // Omitted messages may stand for different faults.
    const { type, code } = serializeError(error, 0);
    const key = JSON.stringify([msg, type, code, members]);
    const counted = REPEATED_LEVELS.has(level) ? repeated.take(key, '', tellLater) : {};
    if (counted !== undefined) write({ err: error, ...counted }, msg);
  };
}

/**
 * Creates a logger: JSON, or readable lines on a terminal. Call sites name each member that they log, which
 * makes an allow-list by construction. They never log a request, a header, a body, a document id or an
 * error's own members. `redact` is only a safety net.
 */
export function createLogger(options: LoggerOptions): Logger {
  const output: DestinationStream & Partial<LogOutput> = options.destination ?? standardOutput();
  const repeated = new CountedLines();
  return pino(
    {
      level: options.level,
      base: { service: options.service },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (error: unknown) => serializeError(error) },
      hooks: { logMethod: explainFaults(repeated) },
      redact: {
        paths: [
          'authorization',
          'cookie',
          'password',
          'secret',
          'token',
          'key',
          'dek',
          'kek',
          'key_material_b64',
          'wrapped_b64',
          'plaintext',
          'body',
        ].flatMap((name) => [name, `*.${name}`]),
        censor: '[redacted]',
      },
    },
    {
      write: (line: string) => output.write(line),
      flushSync: () => output.flushSync?.(),
      flush: () => {
        repeated.flush();
        output.flushSync?.();
      },
    } as DestinationStream,
  );
}

import { type DestinationStream, type Logger, pino } from 'pino';
import { standardOutput } from './log-output.ts';

export type { Logger } from 'pino';

export interface LoggerOptions {
  readonly service: 'bunkms' | 'bundoc';
  readonly level: string;
  /** Where lines go; standard output unless a test looks at them. */
  readonly destination?: DestinationStream;
}

/** Causes that are followed; a chain may be a circle. */
const CAUSES_MAX = 5;

/**
 * Messages that quote what was read: `JSON.parse` repeats the text around its fault, and Node's argument
 * checks repeat the argument. Both may be a key or a document.
 */
function quotesItsInput(error: Error, code: unknown): boolean {
  return error instanceof SyntaxError || (typeof code === 'string' && code.startsWith('ERR_INVALID_ARG_'));
}

/** The frames of a stack, without the message that V8 puts before them. */
function framesOf(stack: string): string {
  return stack
    .split('\n')
    .filter((line) => /^ {4}at /.test(line))
    .join('\n');
}

/** What of an error may be logged; everything else an error carries (sockets, inputs, requests) stays out. */
function serializeError(error: unknown, causesLeft: number = CAUSES_MAX): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: quotesItsInput(error, code) ? '[omitted: may quote its input]' : error.message,
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof error.stack === 'string' ? { stack: framesOf(error.stack) } : {}),
    ...(error.cause === undefined || causesLeft === 0
      ? {}
      : { cause: serializeError(error.cause, causesLeft - 1) }),
  };
}

/**
 * A JSON logger. Call sites name each member they log (an allow-list by construction): never a request, a
 * header, a body, a document id or an error's own members. `redact` is the backstop for a slip.
 */
export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      level: options.level,
      base: { service: options.service },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (error: unknown) => serializeError(error) },
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
    options.destination ?? standardOutput(),
  );
}

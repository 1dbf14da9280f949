import { type DestinationStream, type Logger, pino } from 'pino';

export type { Logger } from 'pino';

export interface LoggerOptions {
  readonly service: 'bunkms' | 'bundoc';
  readonly level: string;
  /** Where lines go; standard output unless a test looks at them. */
  readonly destination?: DestinationStream;
}

/** What of an error may be logged; everything else an error carries (sockets, inputs, requests) stays out. */
function serializeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code } = error as NodeJS.ErrnoException;
  return {
    type: error.name,
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(error.stack === undefined ? {} : { stack: error.stack }),
    ...(error.cause === undefined ? {} : { cause: serializeError(error.cause) }),
  };
}

/**
 * A JSON logger. Call sites name each member they log (an allow-list by construction): never a request, a header, a
 * body, a document id or an error's own members. `redact` is the backstop for a slip.
 */
export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      level: options.level,
      base: { service: options.service },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: serializeError },
      redact: {
        paths: [
          'authorization',
          'token',
          'key',
          'dek',
          'kek',
          'key_material_b64',
          'wrapped_b64',
          'body',
        ].flatMap((name) => [name, `*.${name}`]),
        censor: '[redacted]',
      },
    },
    options.destination ?? pino.destination(1),
  );
}

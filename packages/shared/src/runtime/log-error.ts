import { AppError } from '../contract/app-error.ts';

/** Causes that are followed; a chain may be a circle. */
const CAUSES_MAX = 5;
/** Characters of the reason in a line. */
const REASON_CHARS_MAX = 1_000;
const OMITTED = '[omitted: may quote its input]';

/** The names of errors that are thrown for defects, and by code that says nothing more exact. */
const OF_DEFECTS: ReadonlySet<string> = new Set([
  ...['Error', 'TypeError', 'RangeError', 'ReferenceError', 'SyntaxError', 'EvalError', 'URIError'],
  ...['AssertionError', 'AggregateError'],
]);
/** Codes of the system (`ECONNREFUSED`), of undici, and of TLS: what an operator mends. */
const OF_OPERATION = /^(E[A-Z0-9]+|UND_ERR_.*|ERR_(TLS|SSL)_.*|CERT_.*|UNABLE_TO_.*|.*SELF_SIGNED_.*)$/;

/**
 * Messages that quote what was read: `JSON.parse` repeats the text around its fault, and Node's argument
 * checks repeat the argument. Both may be a key or a document.
 */
function quotesItsInput(error: Error, code: unknown): boolean {
  return error instanceof SyntaxError || (typeof code === 'string' && code.startsWith('ERR_INVALID_ARG_'));
}

/**
 * True for what an operator mends: the message says what is wrong, and frames of the program would help
 * nobody.
 */
function isMendable(error: Error, code: unknown): boolean {
  if (error instanceof AppError) return error.code !== 'internal_error';
  return !OF_DEFECTS.has(error.name) || (typeof code === 'string' && OF_OPERATION.test(code));
}

/** The frames of a stack, without the message that V8 puts before them. */
function framesOf(stack: string): string {
  return stack
    .split('\n')
    .filter((line) => /^ {4}at /.test(line))
    .join('\n');
}

function messageOf(error: Error, code: unknown): string {
  if (quotesItsInput(error, code)) return OMITTED;
  // Node's error for a host with several addresses has no message.
  return error.message === '' ? String(code ?? error.name) : error.message;
}

/** What of an error may be logged; everything else an error carries (sockets, inputs, requests) stays out. */
export function serializeError(error: unknown, causesLeft: number = CAUSES_MAX): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    message: messageOf(error, code),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof error.stack === 'string' && !isMendable(error, code) ? { stack: framesOf(error.stack) } : {}),
    ...(error.cause === undefined || causesLeft === 0
      ? {}
      : { cause: serializeError(error.cause, causesLeft - 1) }),
  };
}

/** The messages of an error and of its causes as one line, as far as they may be logged. */
export function reasonOf(thrown: unknown): string {
  const messages: string[] = [];
  let error = thrown;
  for (let left = CAUSES_MAX; left >= 0 && error !== undefined; left--) {
    const { code } = Object(error) as { code?: unknown };
    const message = error instanceof Error ? messageOf(error, code) : `a thrown ${typeof error}`;
    // A cause often has the message that its error quotes.
    if (!messages.some((earlier) => earlier.includes(message))) messages.push(message);
    error = error instanceof Error ? error.cause : undefined;
  }
  return messages.join(': ').replace(/\s+/g, ' ').slice(0, REASON_CHARS_MAX);
}

import { AppError } from '../contract/app-error.ts';

/** Maximum causes to follow: a chain of causes may be circular. */
const CAUSES_MAX = 5;
/** Characters of the reason in a line. */
const REASON_CHARS_MAX = 1_000;
const OMITTED = '[omitted: may quote its input]';

/** Names of errors that stand for defects, or that say nothing more exact. */
const OF_DEFECTS: ReadonlySet<string> = new Set([
  ...['Error', 'TypeError', 'RangeError', 'ReferenceError', 'SyntaxError', 'EvalError', 'URIError'],
  ...['AssertionError', 'AggregateError'],
]);
/** Codes of the system (`ECONNREFUSED`), of undici and of TLS, for problems that an operator can fix. */
const OF_OPERATION = /^(E[A-Z0-9]+|UND_ERR_.*|ERR_(TLS|SSL)_.*|CERT_.*|UNABLE_TO_.*|.*SELF_SIGNED_.*)$/;

/**
 * Whether the message quotes input: `JSON.parse` quotes the text around its fault, and Node's argument checks
 * quote the argument. Both may be a key or a document.
 */
function quotesItsInput(error: Error, code: unknown): boolean {
  return error instanceof SyntaxError || (typeof code === 'string' && code.startsWith('ERR_INVALID_ARG_'));
}

/** Whether an operator can fix the problem: then the message is enough, and stack frames would not help. */
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
  // OpenSSL's message names its own source files.
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER')
    return 'what answers there does not speak TLS; use an http URL if that is right';
  // Node's error for a host with several addresses has no message.
  return error.message === '' ? String(code ?? error.name) : error.message;
}

/**
 * The parts of an error that may be logged. Everything else in it (sockets, inputs, requests) is left out.
 */
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

/** The messages of an error and its causes in one line, if they may be logged. */
export function reasonOf(thrown: unknown): string {
  const messages: string[] = [];
  let error = thrown;
  for (let left = CAUSES_MAX; left >= 0 && error !== undefined; left--) {
    const { code } = Object(error) as { code?: unknown };
    const message = error instanceof Error ? messageOf(error, code) : `a thrown ${typeof error}`;
    // An error often quotes the message of its cause.
    if (!messages.some((earlier) => earlier.includes(message))) messages.push(message);
    error = error instanceof Error ? error.cause : undefined;
  }
  return messages.join(': ').replace(/\s+/g, ' ').slice(0, REASON_CHARS_MAX);
}

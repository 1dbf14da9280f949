import { defined } from '../contract/defined.ts';
import { printable } from './printable.ts';

/** Colours of the levels: SGR parameters of ECMA-48. */
const COLOURS: Readonly<Record<string, string>> = {
  fatal: '31;1',
  error: '31',
  warn: '33',
  info: '32',
};
const LEVEL_CHARS = 5;

/**
 * A log record as a readable line for a terminal: `12:00:00.000 info bundoc listening
 * url=http://127.0.0.1:8080`. No logged value can move the cursor or colour the screen. A line that is not a
 * record is returned unchanged.
 */
export function terminalLine(line: string, hasColours: boolean): string {
  const record = recordOf(line);
  if (record === undefined) return line;
  const { level, time, service, msg, err, ...members } = record;
  const shade = (text: string, colour: string | undefined) =>
    hasColours && colour !== undefined ? `\u001b[${colour}m${text}\u001b[0m` : text;
  const clock = String(time).slice('2026-01-01T'.length, -'Z'.length);
  const at = frameOf(err);
  const rest = Object.entries({ ...members, ...defined({ at }) });
  return [
    shade(printable(clock), '2'),
    shade(printable(String(level)).padEnd(LEVEL_CHARS), COLOURS[String(level)]),
    shade(printable(String(service)), '2'),
    ` ${printable(String(msg))}`,
    ...rest.map(([name, value]) => ` ${shade(`${printable(name)}=${printable(textOf(value))}`, '2')}`),
  ].join(' ');
}

function recordOf(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const record = JSON.parse(line) as Record<string, unknown>;
    return typeof record['level'] === 'string' && typeof record['msg'] === 'string' ? record : undefined;
  } catch {
    return undefined;
  }
}

/** Where a defect was thrown; the complete stack is in the JSON. */
function frameOf(err: unknown): string | undefined {
  for (let error = err; typeof error === 'object' && error !== null; ) {
    const { stack, cause } = error as { stack?: unknown; cause?: unknown };
    if (typeof stack === 'string' && stack !== '') return stack.split('\n')[0]?.trim().replace(/^at /, '');
    error = cause;
  }
  return undefined;
}

function textOf(value: unknown): string {
  return typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

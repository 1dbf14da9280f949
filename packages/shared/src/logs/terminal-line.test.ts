import { describe, expect, it } from 'vitest';
import { createLogger } from './logger.ts';
import { terminalLine } from './terminal-line.ts';

const RECORD = { level: 'info', time: '2026-11-27T12:00:00.123Z', service: 'bundoc', msg: 'listening' };
const lineOf = (members: object, hasColours = false) =>
  terminalLine(JSON.stringify({ ...RECORD, ...members }), hasColours);

describe('a log record at a terminal', () => {
  it('is one line with time, level, service, message and further members', () => {
    expect(lineOf({ url: 'http://127.0.0.1:8080', ids: ['a', 1], place: 'a folder', empty: '' })).toBe(
      '12:00:00.123 info  bundoc  listening  url=http://127.0.0.1:8080  ids=["a",1]  place="a folder"  empty=""',
    );
  });

  it('shows where a defect was thrown, without the stack', () => {
    const lines: string[] = [];
    const destination = { write: (line: string) => void lines.push(line) };
    const logger = createLogger({ service: 'bundoc', level: 'info', destination });
    logger.error({ err: new Error('outer', { cause: new TypeError('inner') }) }, 'it failed');
    const line = terminalLine(String(lines[0]).trimEnd(), false);
    expect(line).toMatch(
      /^\S+ error bundoc {2}it failed: outer: inner {2}at="?.*terminal-line\.test\.ts:\d+:\d+\)?"?$/,
    );
  });

  it('colours the level if colours are enabled', () => {
    expect(lineOf({ level: 'error' }, true)).toContain('\u001b[31merror\u001b[0m');
    expect(lineOf({ level: 'error' }, false)).not.toContain('\u001b');
  });

  it('escapes control sequences in logged values', () => {
    const evil = '\u001b[2J\u0007\r\n\u009b31m\u2028';
    for (const line of [
      lineOf({ msg: evil }),
      lineOf({ member: evil }),
      lineOf({ [evil]: 1 }),
      lineOf({ service: evil }),
    ])
      expect(line).not.toMatch(/[\p{Cc}\u2028]/u);
  });

  it.each(['', 'Warning: something', '{"level":"info"', '{"msg":"x"}', '[1]', '{"level":1,"msg":"x"}'])(
    'is left unchanged when it is not a log record: %j',
    (line) => {
      expect(terminalLine(line, true)).toBe(line);
    },
  );
});

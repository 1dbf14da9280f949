import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import { ConfigError } from '../process/config.ts';
import { createLogger, type Logger } from './logger.ts';

const SECRET = 'planted-secret';
let lines: string[];
let logger: Logger;

beforeEach(() => {
  lines = [];
  logger = createLogger({
    service: 'bunkms',
    level: 'trace',
    destination: {
      write: (line: string) => {
        lines.push(line);
      },
    },
  });
});

const last = () => JSON.parse(lines.at(-1) ?? '{}') as Record<string, Record<string, unknown>>;

describe('a log line', () => {
  it('is JSON with level, time and service, without host or process id', () => {
    logger.info({ project: 'project-a' }, 'opened');
    expect(last()).toEqual({
      level: 'info',
      time: expect.stringMatching(/^\d{4}-.*Z$/),
      service: 'bunkms',
      project: 'project-a',
      msg: 'opened',
    });
  });

  it.each([
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
  ])('does not contain a member named %s, at the top, one level below, or from a child logger', (name) => {
    logger.info({ [name]: SECRET }, 'x');
    logger.info({ headers: { [name]: SECRET } }, 'x');
    logger.child({ [name]: SECRET }).info('x');
    expect(lines).toHaveLength(3);
    expect(lines.join('')).not.toContain(SECRET);
  });
});

describe('a fault', () => {
  const refused = () =>
    Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:5432'), { code: 'ECONNREFUSED' });

  it('has its reason in the message, in one line, whatever the causes contain', () => {
    const cause = new AppError('storage_unavailable', { cause: refused() });
    logger.warn({ err: new Error('it failed:\nfor a reason', { cause }) }, 'work stopped');
    expect(last()['msg']).toBe(
      'work stopped: it failed: for a reason: storage_unavailable: connect ECONNREFUSED 10.0.0.1:5432',
    );
  });

  it('says in words that a server speaks no TLS, where OpenSSL names its own source files', () => {
    const message =
      'C0A2F02C6A7F0000:error:0A00010B:SSL routines:tls_validate_record_header:wrong version number';
    const code = 'ERR_SSL_WRONG_VERSION_NUMBER';
    logger.warn({ err: Object.assign(new Error(message), { code }) }, 'waiting');
    const msg = 'waiting: what answers there does not speak TLS; use an http URL if that is right';
    expect(last()).toMatchObject({ msg, err: { code } });
  });

  it('has no stack if an operator can fix it, and one if it is a defect', () => {
    const stackOf = (error: Error) => {
      logger.error({ err: error }, error.message);
      return typeof last()['err']?.['stack'];
    };
    for (const error of [
      refused(),
      new AppError('kms_unavailable'),
      new ConfigError(['PORT: must be a number']),
      Object.assign(new Error('expired'), { code: 'CERT_HAS_EXPIRED' }),
      AbortSignal.abort(new DOMException('too late', 'TimeoutError')).reason as Error,
    ])
      expect(stackOf(error), error.message).toBe('undefined');
    for (const error of [
      new Error('plain'),
      new TypeError('x is not a function'),
      new AppError('internal_error'),
    ])
      expect(stackOf(error), error.message).toBe('string');
  });

  it('is described by its code when it has no message', () => {
    logger.warn({ err: Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }) }, 'no connection');
    expect(last()['msg']).toBe('no connection: ECONNREFUSED');
  });

  it('a repeated fault gets one line a minute with its count, and a last line with the last count', () => {
    vi.useFakeTimers();
    try {
      for (let n = 0; n < 10; n++) logger.warn({ err: refused(), project: 'a' }, 'it failed');
      logger.warn({ err: refused(), project: 'b' }, 'it failed');
      expect(lines).toHaveLength(2);
      vi.advanceTimersByTime(60_000);
      logger.warn({ err: refused(), project: 'b' }, 'it failed');
      vi.advanceTimersByTime(60_000);
      expect(lines).toHaveLength(4);
      expect(last()).toMatchObject({
        level: 'warn',
        project: 'a',
        count: 9,
        msg: 'it failed: connect ECONNREFUSED 10.0.0.1:5432 (repeated)',
      });
    } finally {
      vi.useRealTimers();
    }
  });

  it('a fatal fault always gets its line', () => {
    for (let n = 0; n < 2; n++) logger.fatal({ err: refused() }, 'it failed');
    expect(lines).toHaveLength(2);
  });

  it('has its count logged before the process exits', () => {
    for (let n = 0; n < 3; n++) logger.error({ err: refused() }, 'it failed');
    logger.flush();
    expect(last()).toMatchObject({ count: 2 });
  });
});

describe('an error in a log line', () => {
  it('has type, message, code, frames and causes, and none of its other members', () => {
    const cause = Object.assign(new TypeError('inner'), {
      code: 'E_INNER',
      config: { headers: { x: SECRET } },
      input: SECRET,
    });
    const error = Object.assign(new Error('outer', { cause }), {
      request: SECRET,
      body: SECRET,
      [SECRET]: 1,
    });
    for (const log of [() => logger.error({ err: error }, 'x'), () => logger.error(error)]) {
      log();
      expect(last()['msg']).toMatch(/^(x: )?outer: inner$/);
      expect(last()['err']).toEqual({
        type: 'Error',
        message: 'outer',
        stack: expect.stringMatching(/^ {4}at /),
        cause: { type: 'TypeError', message: 'inner', code: 'E_INNER', stack: expect.any(String) },
      });
    }
    expect(lines.join('')).not.toContain(SECRET);
  });

  it('does not quote text that JSON.parse could not parse', () => {
    const attempt = (text: string) => {
      try {
        JSON.parse(text);
      } catch (error) {
        return error;
      }
      return undefined;
    };
    // V8 quotes its input: the reason for this test.
    expect(String(attempt(`${SECRET}`))).toContain('planted');
    logger.error({ err: attempt(SECRET) }, 'x');
    logger.error({ err: new Error('outer', { cause: attempt(`{"a":${SECRET}}`) }) }, 'x');
    logger.error(new Error('outer', { cause: attempt(`["${SECRET}\n"]`) }));
    expect(lines.join('')).not.toMatch(/planted|secret/);
  });

  it('does not quote an argument that Node refused', () => {
    for (const action of [
      () => readFileSync(`${SECRET}\0`),
      () => Buffer.alloc(SECRET as unknown as number),
    ]) {
      try {
        action();
      } catch (error) {
        logger.error({ err: error }, 'x');
      }
    }
    expect(lines).toHaveLength(2);
    expect(lines.join('')).not.toContain(SECRET);
  });

  it.each([SECRET, { secret: SECRET }, [SECRET], 1, null])(
    'an error in a log line that is not an Error is logged only by its type: %j',
    (thrown) => {
      logger.error({ err: thrown }, 'x');
      logger.error({ err: new Error('outer', { cause: thrown }) }, 'x');
      expect(lines.join('')).not.toContain(SECRET);
    },
  );

  it('is finite, even when its causes are circular', () => {
    const error = new Error('round');
    error.cause = error;
    logger.error({ err: error }, 'x');
    expect(lines[0]?.match(/"message":"round"/g)).toHaveLength(6);
  });

  it('omits a foreign code unless it is a word or a number', () => {
    logger.error({ err: Object.assign(new Error('x'), { code: { value: SECRET } }) }, 'x');
    expect(last()['err']).not.toHaveProperty('code');
  });
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createLogger } from '../logs/logger.ts';
import {
  ConfigError,
  logLevel,
  originList,
  parseEnvironment,
  portNumber,
  readSecretFile,
  warnOfUnknown,
  wholeNumber,
} from './config.ts';

const SECRET = 'planted-secret';

function faultsOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error('it was accepted');
}

const schema = z.object({
  PORT: portNumber.default(8080),
  LEVEL: logLevel.default('info'),
  URL: z.url(),
  KEK: z.string().length(64),
  MODE: z.union([z.literal('files'), z.url({ protocol: /^postgres$/ })]),
  PATTERN: z.string().regex(/^x$/),
});

describe('warnOfUnknown', () => {
  const warned = (environment: Record<string, string>): string[] => {
    const lines: string[] = [];
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        lines.push(String(chunk));
        done();
      },
    });
    const logger = createLogger({ service: 'bundoc', level: 'info', destination });
    const known = { prefix: 'BUNDOC_', names: ['BUNDOC_PORT', 'BUNDOC_LOG_BYTES'] };
    warnOfUnknown(known, environment, logger);
    return lines;
  };

  it('does not name what Kubernetes sets for a Service with the name of the program', () => {
    const names = [
      'SERVICE_HOST',
      'SERVICE_PORT',
      'SERVICE_PORT_HTTP',
      'PORT_8080_TCP',
      'PORT_8080_TCP_ADDR',
    ];
    expect(warned(Object.fromEntries(names.map((name) => [`BUNDOC_${name}`, '1'])))).toEqual([]);
    expect(warned({ BUNDOC_SERVICE: '1' })).toHaveLength(1);
  });

  it('names a misspelt variable and the one that is similar, and quotes no value', () => {
    const lines = warned({
      BUNDOC_PROT: '1',
      BUNDOC_LOG_BYTE: SECRET,
      BUNDOC_FOO: '1',
      BUNKMS_ELSE: SECRET,
      PATH: SECRET,
    });
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
      expect.objectContaining({
        variables: ['BUNDOC_FOO', 'BUNDOC_LOG_BYTE', 'BUNDOC_PROT'],
        msg: 'unknown variables are ignored: BUNDOC_FOO, BUNDOC_LOG_BYTE (did you mean BUNDOC_LOG_BYTES?), BUNDOC_PROT (did you mean BUNDOC_PORT?)',
      }),
    ]);
    expect(lines.join('')).not.toContain(SECRET);
  });

  it('logs nothing when all variables are known', () => {
    expect(warned({ BUNDOC_PORT: '1', BUNKMS_PORT: '2' })).toEqual([]);
  });
});

describe('parseEnvironment', () => {
  it('lists all faults at once, each by its variable, and quotes no value', () => {
    const message = faultsOf(() =>
      parseEnvironment(schema, {
        PORT: SECRET,
        LEVEL: SECRET,
        URL: SECRET,
        KEK: SECRET,
        MODE: SECRET,
        PATTERN: SECRET,
      }),
    );
    for (const name of ['PORT', 'LEVEL', 'URL', 'KEK', 'MODE', 'PATTERN'])
      expect(message).toContain(`\n  ${name}: `);
    expect(message).not.toContain(SECRET);
  });

  it('says of every variable with a list of values which they are', () => {
    expect(faultsOf(() => parseEnvironment(z.object({ LEVEL: logLevel }), { LEVEL: 'verbose' }))).toContain(
      'LEVEL: must be one of "fatal", "error", "warn", "info", "debug", "trace", "silent"',
    );
  });

  it('treats an empty variable as absent, for defaults and for required variables', () => {
    const parsed = parseEnvironment(z.object({ PORT: portNumber.default(8080) }), { PORT: '' });
    expect(parsed).toEqual({ PORT: 8080 });
    expect(faultsOf(() => parseEnvironment(z.object({ KEK: z.string() }), { KEK: '' }))).toContain('KEK: ');
  });

  it('returns only the variables of the schema', () => {
    expect(parseEnvironment(z.object({ A: z.string() }), { A: '1', PATH: '/bin' })).toEqual({ A: '1' });
  });

  it('keeps neither the input nor the parser’s error', () => {
    try {
      parseEnvironment(schema, { KEK: SECRET });
      expect.unreachable();
    } catch (error) {
      expect((error as Error).cause).toBeUndefined();
      expect(JSON.stringify(error) + (error as Error).stack).not.toContain(SECRET);
    }
  });
});

describe('wholeNumber', () => {
  const number = wholeNumber(5, 1_000);

  it.each(['5', '1000', '0005'])('accepts %j', (text) => {
    expect(number.parse(text)).toBe(Number(text));
  });

  it.each(['4', '1001', '-5', '5.0', '1e2', '0x10', ' 5', '5\n', '٥', '', 'NaN', '9'.repeat(30)])(
    'refuses %j',
    (text) => {
      expect(number.safeParse(text).error?.issues[0]?.message).toBe('must be a whole number from 5 to 1000');
    },
  );

  it.each([
    ['65535', true],
    ['0', true],
    ['65536', false],
  ])('wholeNumber as a port, %s: %s', (text, isPort) => {
    expect(portNumber.safeParse(text).success).toBe(isPort);
  });

  it('a port that Kubernetes has set for a Service is refused with what to do, and nothing else', () => {
    const { error } = portNumber.safeParse('tcp://10.0.0.1:8080');
    expect(error?.issues.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^is what Kubernetes sets .*enableServiceLinks: false/),
    ]);
  });
});

describe('readSecretFile', () => {
  const folder = mkdtempSync(join(tmpdir(), 'secret-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (content: string) => {
    const path = join(folder, 'secret');
    writeFileSync(path, content);
    return path;
  };

  it.each([SECRET, `${SECRET}\n`, `${SECRET}\r\n`])(
    'returns the content without its line break',
    (content) => {
      expect(readSecretFile('TOKEN_FILE', file(content))).toBe(SECRET);
    },
  );

  it.each(['', '\n', ' \n'])('refuses a file with nothing in it: %j', (content) => {
    expect(faultsOf(() => readSecretFile('TOKEN_FILE', file(content)))).toMatch(
      /TOKEN_FILE: the file \S+secret is empty/,
    );
  });

  it('names the variable, the path, the reason, and the command that makes a missing file', () => {
    const path = join(folder, 'no-such-file');
    const make = (place: string) => `make ${place}`;
    const message = `TOKEN_FILE: the file ${path} cannot be read (ENOENT)`;
    expect(faultsOf(() => readSecretFile('TOKEN_FILE', path, make))).toContain(`${message}; make ${path}`);
    expect(faultsOf(() => readSecretFile('TOKEN_FILE', path))).toMatch(/\(ENOENT\)$/);
    expect(faultsOf(() => readSecretFile('TOKEN_FILE', folder, make))).toContain(
      `TOKEN_FILE: ${folder} is a folder: name a file`,
    );
    expect(faultsOf(() => readSecretFile('TOKEN_FILE', 'a\n\u001b'))).toContain(
      String.raw`a\u000a\u001b cannot`,
    );
  });

  it('does not repeat a token or KEK that was given in place of a path', () => {
    const key = Buffer.alloc(32, 0xab);
    for (const secret of [key.toString('base64'), key.toString('hex'), 'eyJhbGciOiJFZERTQSJ9.e30.c2ln']) {
      const message = faultsOf(() => readSecretFile('TOKEN_FILE', secret));
      expect(message).toContain('TOKEN_FILE: must be the path of a file, and looks like the secret itself');
      expect(message).not.toContain(secret);
    }
  });
});

describe('a list of origins', () => {
  const read = (text: string) => originList.safeParse(text);

  it('accepts origins as browsers send them', () => {
    expect(read('https://app.example, http://localhost:5173,http://[::1]:8080').data).toEqual([
      'https://app.example',
      'http://localhost:5173',
      'http://[::1]:8080',
    ]);
  });

  it.each([
    '*',
    'null',
    'https://app.example/',
    'https://App.example',
    'https://app.example:443',
    'https://*.example',
    'app.example',
    'file:///x',
    'https://a.example,,https://b.example',
  ])('refuses %s, which no browser sends or which would allow other origins', (text) => {
    expect(read(text).success).toBe(false);
  });

  it('says of a slash at the end that it must go', () => {
    const messageOf = (text: string) => read(text).error?.issues[0]?.message;
    expect(messageOf('https://app.example/')).toMatch(/: drop the slash at the end$/);
    expect(messageOf('app.example')).toMatch(/ such as https:\/\/app\.example:8443$/);
  });

  it('has a maximum length', () => {
    const many = Array.from({ length: 101 }, (_, at) => `https://a${at}.example`);
    expect([read(many.join(',')).success, read(many.slice(1).join(',')).success]).toEqual([false, true]);
  });
});

import { readFileSync } from 'node:fs';
import { STATUS_CODES } from 'node:http';
import { describe, expect, it } from 'vitest';
import { AppError, hasCode } from './app-error.ts';
import { collectionNameSchema, documentIdSchema, projectIdSchema } from './documents.ts';
import {
  createKeySchema,
  dekNameOf,
  exportedKeySchema,
  KEY_VERSIONS_MAX,
  keyNameSchema,
  keyVersionParamSchema,
} from './keys.ts';
import { PROBLEM_CODES, PROBLEMS, problemSchema } from './problem.ts';
import { problemOf, toAppError } from './problem-reply.ts';
import {
  audienceOf,
  claimsSchema,
  issueTokenSchema,
  keyGlobSchema,
  scopeSchema,
  TOKEN_TTL_S_DEFAULT,
  TOKEN_TTL_S_MAX,
} from './tokens.ts';

describe('the table of problems', () => {
  const docs = readFileSync(new URL('../../../../docs/errors.md', import.meta.url), 'utf8');
  const rows = [...docs.matchAll(/^\| `(\w+)` +\| (\d{3}) +\| (.+?) +\| (.+?) +\|$/gm)].map(
    ([, code, status, title, meaning]) => ({ code, status: Number(status), title, meaning }),
  );

  it('equals the table in docs/errors.md, row by row and in the same order', () => {
    expect(rows.map(({ code, status, title }) => ({ code, status, title }))).toEqual(
      PROBLEM_CODES.map((code) => ({ code, ...PROBLEMS[code] })),
    );
  });

  it('says for each code what it means and what to do', () => {
    for (const { code, meaning } of rows) expect(meaning?.length, code).toBeGreaterThan(20);
  });

  it.each(PROBLEM_CODES)('gives %s a problem document that matches the wire contract', (code) => {
    const { status, title } = PROBLEMS[code];
    expect(STATUS_CODES[status]).toBeDefined();
    // It is also the reason phrase of answers to unparsable requests.
    expect(title).toMatch(/^[\x20-\x7e]+$/);
    const problem = problemOf(new AppError(code, { cause: new Error('planted-secret') }), 'id-1');
    expect(problemSchema.strict().parse(problem)).toEqual({
      type: 'about:blank',
      title,
      status,
      code,
      request_id: 'id-1',
    });
  });

  it('has no code that reveals why a decryption failed', () => {
    const opening = PROBLEM_CODES.filter((code) => /integrity|tag|decrypt|nonce|corrupt/.test(code));
    // One for stored bytes, and one for bytes that a caller sends.
    expect(opening).toEqual(['decryption_failed', 'integrity_error']);
  });
});

describe('toAppError', () => {
  it.each([
    ['a thrown string', 'planted-secret'],
    ['nothing', undefined],
    ['an error', new Error('planted-secret')],
    ['an error with the status of another server', Object.assign(new Error('x'), { statusCode: 403 })],
    [
      'an error with a code of another library',
      Object.assign(new Error('x'), { statusCode: 400, code: 'UND_ERR_ABORTED' }),
    ],
    ['an error with a code that is not text', Object.assign(new Error('x'), { statusCode: 400, code: 7 })],
    ['an object that looks like an AppError', { name: 'AppError', code: 'forbidden' }],
    ['a framework error of 5xx', Object.assign(new Error('x'), { statusCode: 500, code: 'FST_ERR_X' })],
  ])('treats %s as a defect', (_what, thrown) => {
    const error = toAppError(thrown);
    expect(error.code).toBe('internal_error');
    expect(error.detail).toBeUndefined();
    expect(error.cause).toBe(thrown);
  });

  it('returns an AppError unchanged', () => {
    const error = new AppError('forbidden');
    expect(toAppError(error)).toBe(error);
    expect(hasCode(error, 'not_found', 'forbidden')).toBe(true);
    expect(hasCode({ code: 'forbidden' }, 'forbidden')).toBe(false);
  });
});

describe('a document id', () => {
  it.each([
    ['one byte', 'a'],
    ['512 bytes', 'a'.repeat(512)],
    ['512 bytes of two-byte characters', 'é'.repeat(256)],
    ['512 bytes of emoji', '😀'.repeat(128)],
    ['dots in company', '...'],
    ['a leading dot', '.hidden'],
    ['a backslash', 'a\\b'],
    ['a space', ' '],
    ['percent signs', '%2e%2e%00'],
    ['a query', 'a?b=c#d'],
    ['a name of Object.prototype', '__proto__'],
    ['a line separator, which is not a control character', '\u2028'],
    ['a joined emoji', '👩‍👩‍👧'],
  ])('may be %s, and comes out unchanged', (_what, id) => {
    expect(documentIdSchema.parse(id)).toBe(id);
  });

  it.each([
    ['empty', ''],
    ['513 bytes', 'a'.repeat(513)],
    ['513 bytes in 257 characters', `${'é'.repeat(256)}a`],
    ['513 bytes in 129 characters', `${'😀'.repeat(128)}a`],
    ['a NUL', 'a\0b'],
    ['a line break', 'a\nb'],
    ['a line break at its end', 'a\n'],
    ['a DEL', '\x7f'],
    ['the first C1 control', '\x80'],
    ['the last C1 control', '\x9f'],
    ['a slash', 'a/b'],
    ['a slash alone', '/'],
    ['a dot', '.'],
    ['two dots', '..'],
    ['a lone high surrogate', 'a\ud800'],
    ['a lone low surrogate', '\udc00a'],
    ['surrogates in the wrong order', '\ude00\ud83d'],
    ['a number', 7],
    ['a list', ['a']],
  ])('is never %s', (_what, id) => {
    expect(documentIdSchema.safeParse(id).success).toBe(false);
  });
});

describe('a project id', () => {
  it.each([
    ['Project-A', 'project-a'],
    ['a', 'a'],
    ['0', '0'],
    ['A'.repeat(63), 'a'.repeat(63)],
    ['a--', 'a--'],
  ])('%j means %j', (sent, canonical) => {
    expect(projectIdSchema.parse(sent)).toBe(canonical);
    expect(projectIdSchema.parse(canonical)).toBe(canonical);
  });

  it.each([
    '',
    '-a',
    'a_b',
    'a.b',
    '.',
    '..',
    'a/b',
    'a b',
    'a\n',
    'é',
    'a'.repeat(64),
    '\u212a', // The Kelvin sign, whose lower case is "k".
    '\u0130', // A dotted capital I, whose lower case is two characters.
    'ſ',
    'ａ',
    'a\0',
    '*',
  ])('is never %j', (sent) => {
    expect(projectIdSchema.safeParse(sent).success).toBe(false);
  });

  it('gives a key name that BunKMS accepts, however long it is', () => {
    expect(keyNameSchema.parse(dekNameOf('a'.repeat(63)))).toBe(`${'a'.repeat(63)}-dek`);
  });
});

describe('names', () => {
  it.each(['', 'a'.repeat(129), 'a.b', 'a/b', 'é', 'a\n', '..'])('a collection is never %j', (name) => {
    expect(collectionNameSchema.safeParse(name).success).toBe(false);
  });

  it.each(['', 'A', '.a', '-a', 'a/b', 'a*', 'a\n', '\u212a', 'a'.repeat(129), '..'])(
    'a key is never %j',
    (name) => {
      expect(keyNameSchema.safeParse(name).success).toBe(false);
    },
  );

  it.each(['', 'A*', 'a?', '[a]', 'a/b', '*\n', 'a'.repeat(129)])('a glob is never %j', (glob) => {
    expect(keyGlobSchema.safeParse(glob).success).toBe(false);
  });

  it.each(['aes-128', 'AES-256', 'rsa', '', null])('a key is never of type %j', (type) => {
    expect(createKeySchema.safeParse({ name: 'a', type }).success).toBe(false);
  });

  it('a request for a key has no other members', () => {
    expect(createKeySchema.safeParse({ name: 'a', type: 'aes-256', key_material_b64: 'x' }).success).toBe(
      false,
    );
  });
});

describe('a version in a query', () => {
  it.each([1, 9, 10, 999, KEY_VERSIONS_MAX])('may be %i', (version) => {
    expect(keyVersionParamSchema.parse(String(version))).toBe(version);
  });

  it.each(['', '0', '00', '01', '-1', '+1', '1.0', '1e2', ' 1', '1\n', '\u0661', '1001', '99999', 1, ['1']])(
    'is never %j',
    (text) => {
      expect(keyVersionParamSchema.safeParse(text).success).toBe(false);
    },
  );
});

describe('a request for a token', () => {
  const request = { sub: 'app', typ: 'service', scope: ['docs:read'], projects: ['p'] };
  const faultsOf = (changes: Record<string, unknown>) =>
    issueTokenSchema.safeParse({ ...request, ...changes }).error?.issues.map((issue) => issue.path.join('.'));

  it('a valid request for a token is accepted, with no keys and no projects unless it names them', () => {
    expect(issueTokenSchema.parse(request)).toEqual({ ...request, keys: [] });
    const metrics = { sub: 'app', typ: 'service', scope: ['docs:metrics'] };
    expect(issueTokenSchema.parse(metrics)).toEqual({ ...metrics, keys: [], projects: [] });
  });

  it('names a project if the token is for documents, since it would allow nothing', () => {
    for (const scope of ['docs:read', 'docs:write', 'docs:admin'])
      expect(faultsOf({ typ: 'client', scope: [scope], projects: [] })).toEqual(['projects']);
  });

  it('never mixes the scopes of the two services', () => {
    expect(faultsOf({ scope: ['kms:read_key', 'docs:read'] })).toEqual(['scope']);
  });

  it('never lets a client export keys', () => {
    expect(faultsOf({ typ: 'client', scope: ['kms:export_key'] })).toEqual(['scope']);
    expect(faultsOf({ typ: 'client', scope: ['kms:read_key', 'kms:export_key'] })).toEqual(['scope']);
    expect(faultsOf({ typ: 'service', scope: ['kms:export_key'] })).toBeUndefined();
  });

  it('never gives a client token a scope that every endpoint would refuse in it, and says where all are listed', () => {
    const refused = scopeSchema.options.filter((scope) => faultsOf({ typ: 'client', scope: [scope] }));
    expect(refused).toEqual([
      'kms:shred_key',
      'kms:export_key',
      'kms:metrics',
      'kms:issue_client',
      'kms:manage_kek',
      'kms:admin',
      'docs:metrics',
    ]);
    const asked = issueTokenSchema.safeParse({ ...request, typ: 'client', scope: ['docs:metrics'] });
    expect(asked.error?.issues[0]?.message).toBe(
      'only service tokens may have docs:metrics (docs/scopes.md)',
    );
  });

  it.each(['service', 'client'] as const)('never exceeds the longest life of a %s token', (typ) => {
    expect(faultsOf({ typ, ttl_s: TOKEN_TTL_S_MAX[typ] })).toBeUndefined();
    expect(faultsOf({ typ, ttl_s: TOKEN_TTL_S_MAX[typ] + 1 })).toEqual(['ttl_s']);
    expect(TOKEN_TTL_S_DEFAULT[typ]).toBeLessThanOrEqual(TOKEN_TTL_S_MAX[typ]);
  });

  it.each([
    [{ scope: [] }],
    [{ scope: ['docs:everything'] }],
    [{ scope: 'docs:read' }],
    [{ sub: '' }],
    [{ sub: 'a b' }],
    [{ sub: 'a\n' }],
    [{ typ: 'admin' }],
    [{ ttl_s: 0 }],
    [{ ttl_s: -1 }],
    [{ ttl_s: 1.5 }],
    [{ ttl_s: Number.POSITIVE_INFINITY }],
    [{ keys: Array.from({ length: 101 }, () => 'a') }],
    [{ projects: ['project-*'] }],
    [{ jti: '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11' }],
    [{ exp: 1 }],
  ])('is refused with %j', (changes) => {
    expect(faultsOf(changes)?.length).toBeGreaterThan(0);
  });

  it('reports all its faults, not only the first', () => {
    expect(faultsOf({ typ: 'client', scope: ['kms:export_key', 'docs:read'], ttl_s: 10 ** 9 })).toEqual([
      'scope',
      'scope',
      'ttl_s',
    ]);
  });

  it('has one audience for each scope', () => {
    for (const scope of scopeSchema.options)
      expect(audienceOf(scope)).toBe(scope.startsWith('docs:') ? 'bundoc' : 'bunkms');
  });
});

describe('claims', () => {
  it('keep the known members of a token and drop the others', () => {
    const known = {
      iss: 'bunkms',
      aud: 'bundoc',
      sub: 'a',
      typ: 'client',
      jti: '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11',
      iat: 1,
      exp: 2,
    };
    expect(
      claimsSchema.parse({
        ...known,
        scope: ' docs:read  docs:write ',
        admin: true,
        projects: ['Project-A', '*'],
      }),
    ).toEqual({
      ...known,
      scope: ['docs:read', 'docs:write'],
      keys: [],
      projects: ['project-a', '*'],
    });
  });
});

describe('an exported key', () => {
  const exported = {
    key_material_b64: Buffer.alloc(32).toString('base64'),
    algorithm: 'AES-256-GCM',
    name: 'project-a-dek',
    key_id: '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11',
    version: 1,
    kcv: '0'.repeat(32),
    wrapped_b64: '',
    lease: { id: '1', ttl_ms: 900_000 },
    audit: { seq: 1, hash: 'x' },
  };

  it.each([
    ['a shorter key', { key_material_b64: Buffer.alloc(16).toString('base64') }],
    ['another algorithm', { algorithm: 'AES-128-GCM' }],
    ['no lease', { lease: undefined }],
    ['an endless lease', { lease: { id: '1', ttl_ms: Number.POSITIVE_INFINITY } }],
    ['no record in the audit', { audit: undefined }],
    ['a malformed check value', { kcv: '0'.repeat(31) }],
    ['version 0', { version: 0 }],
  ])('is never one with %s', (_what, changes) => {
    expect(exportedKeySchema.safeParse(exported).success).toBe(true);
    expect(exportedKeySchema.safeParse({ ...exported, ...changes }).success).toBe(false);
  });
});

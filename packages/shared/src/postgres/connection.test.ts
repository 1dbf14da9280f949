import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { formatAddress, type PostgresAddress, parseAddress } from './address.ts';
import { clientConfig, usesTls } from './connection.ts';

const at = (text: string) => parseAddress(text) as PostgresAddress;
const settings = (text: string) => ({
  address: at(text),
  variable: 'TEST_STORAGE',
  connectTimeoutMs: 1_000,
  statementTimeoutMs: 2_000,
  answerSlackMs: 500,
  applicationName: 'test',
});

describe('the URL of a PostgreSQL', () => {
  it('names host, port, database, user, password and known parameters, and nothing else', () => {
    expect(at('postgres://kms:p%40ss@db.example:6543/keys?sslmode=disable')).toEqual({
      host: 'db.example',
      port: 6_543,
      database: 'keys',
      user: 'kms',
      password: 'p@ss',
      sslMode: 'disable',
      isPooled: false,
    });
    expect(at('postgresql://kms@[::1]/keys')).toEqual({
      host: '::1',
      port: 5_432,
      database: 'keys',
      user: 'kms',
      password: undefined,
      isPooled: false,
    });
    const parameters = 'pooler=transaction&connections=30&timeout_ms=9000';
    expect(at(`postgres://kms@db.example/keys?${parameters}`)).toMatchObject({
      isPooled: true,
      connectionsMax: 30,
      timeoutMs: 9_000,
    });
  });

  it.each([
    'postgres://',
    'postgres://db.example/keys',
    'postgres://kms@db.example',
    'postgres://kms@db.example/a/b',
    'postgres://kms@db.example/keys?sslmode=require',
    'postgres://kms@db.example/keys?host=/tmp',
    'postgres://kms@db.example/keys?pooler=session',
    'postgres://kms@db.example/keys?sslmode=verify-full&sslmode=disable',
    'postgres://kms@db.example/keys?connections=2',
    'postgres://kms@db.example/keys?timeout_ms=1h',
    'postgres://kms@db.example/keys#fragment',
    'postgres://kms:%zz@db.example/keys%zz',
    'mysql://kms@db.example/keys',
  ])('is not %s', (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });

  it('appears in the log as host, port and database, without user and password', () => {
    expect(formatAddress(at('postgres://kms:secret@db.example/keys'))).toBe('db.example:5432/keys');
    expect(formatAddress(at('postgres://kms:secret@[::1]/keys'))).toBe('[::1]:5432/keys');
  });
});

describe('a connection to PostgreSQL', () => {
  const caFile = { variable: 'CA_FILE', path: '/ca.pem' };

  it.each<[string, typeof caFile | undefined, boolean]>([
    ['postgres://a@db.example/x', undefined, true],
    ['postgres://a@192.0.2.1/x', undefined, true],
    ['postgres://a@localhost.example/x', undefined, true],
    ['postgres://a@localhost/x', undefined, false],
    ['postgres://a@127.0.0.1/x', undefined, false],
    ['postgres://a@[::1]/x', undefined, false],
    ['postgres://a@localhost/x', caFile, true],
    ['postgres://a@localhost/x?sslmode=verify-full', undefined, true],
    ['postgres://a@db.example/x?sslmode=disable', undefined, false],
  ])('a connection to PostgreSQL to %s with the authority %o uses TLS: %s', (text, ca, isTls) => {
    expect(usesTls({ address: at(text), caFile: ca })).toBe(isTls);
  });

  it('verifies the certificate against the host in the URL', () => {
    expect(clientConfig(settings('postgres://a@db.example/x')).ssl).toMatchObject({
      rejectUnauthorized: true,
    });
    expect(clientConfig(settings('postgres://a@localhost/x')).ssl).toBe(false);
  });

  it('is refused with an authority but without TLS, and with files that cannot be read', () => {
    expect(() => clientConfig({ ...settings('postgres://a@db/x?sslmode=disable'), caFile })).toThrow(
      'CA_FILE',
    );
    expect(() => clientConfig({ ...settings('postgres://a@db/x'), caFile })).toThrow('CA_FILE');
    const passwordFile = { variable: 'PASSWORD_FILE', path: '/none' };
    expect(() => clientConfig({ ...settings('postgres://a@db/x'), passwordFile })).toThrow('PASSWORD_FILE');
  });

  it('reads the password file again each time', () => {
    const folder = mkdtempSync(join(tmpdir(), 'shared-postgres-'));
    try {
      const passwordFile = { variable: 'PASSWORD_FILE', path: join(folder, 'password') };
      writeFileSync(passwordFile.path, 'one');
      const { password } = clientConfig({ ...settings('postgres://a:url@localhost/x'), passwordFile });
      writeFileSync(passwordFile.path, 'two');
      expect(typeof password === 'function' && password()).toBe('two');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

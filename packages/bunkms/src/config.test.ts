import { ConfigError } from '@bundoc/shared/process/config';
import { describe, expect, it } from 'vitest';
import { readConfig, VARIABLES } from './config.ts';

const KEK = 'aa'.repeat(32);

it('has the documented defaults', () => {
  expect(readConfig({ BUNKMS_KEK: KEK })).toEqual({
    host: '127.0.0.1',
    port: 8081,
    internalHost: '127.0.0.1',
    internalPort: 8082,
    tls: undefined,
    internalTls: undefined,
    internalClientNames: undefined,
    console: true,
    dataDir: './data/kms',
    storage: { kind: 'sqlite', deadlineMs: 2_000 },
    kek: { kind: 'inline', text: KEK },
    auditShip: undefined,
    backupTo: undefined,
    archive: undefined,
    leaseTtlMs: 900_000,
    limits: {
      exportsPerToken: 2_000,
      exportsPerKey: 200,
      cryptoPerToken: 5_000,
      cryptoPerKey: 5_000,
      destructionsPerToken: 1,
      renewalsPerMinute: 30,
      issuesPerToken: 20,
      readsPerToken: 100,
      creationsPerToken: 1_000,
    },
    shares: {},
    drainMs: 3_000,
    logLevel: 'info',
  });
});

it('treats an empty variable as absent', () => {
  expect(readConfig({ BUNKMS_KEK: '', BUNKMS_KEK_FILE: '/k', BUNKMS_PORT: '' })).toMatchObject({
    port: 8081,
    kek: { kind: 'file', path: '/k' },
  });
});

it.each([
  ['stdout', { kind: 'stdout' }],
  ['file:/var/log/audit.ndjson', { kind: 'file', path: '/var/log/audit.ndjson' }],
])('reads the target of the audit copy: %s', (text, auditShip) => {
  expect(readConfig({ BUNKMS_KEK: KEK, BUNKMS_AUDIT_SHIP: text })).toMatchObject({ auditShip });
});

it('reads the folder of its own backups, and the archive', () => {
  const targets = { BUNKMS_BACKUP_TO: '/backup/kms', BUNKMS_ARCHIVE: 's3://bucket/kms' };
  expect(readConfig({ BUNKMS_KEK: KEK, ...targets })).toMatchObject({
    backupTo: '/backup/kms',
    archive: 's3://bucket/kms',
  });
});

it('lists all faults at once, and quotes no value', () => {
  const faulty = () =>
    readConfig({
      BUNKMS_PORT: '99999',
      BUNKMS_INTERNAL_PORT: '80a',
      BUNKMS_STORAGE: 'mongodb://secret@host',
      BUNKMS_LOG_LEVEL: 'loud',
      BUNKMS_DRAIN_MS: '3s',
      BUNKMS_AUDIT_SHIP: 'syslog:secret',
      BUNKMS_LEASE_TTL_MS: '900001',
    });
  expect(faulty).toThrow(ConfigError);
  for (const name of [
    'BUNKMS_PORT',
    'BUNKMS_INTERNAL_PORT',
    'BUNKMS_STORAGE',
    'BUNKMS_LOG_LEVEL',
    'BUNKMS_AUDIT_SHIP',
    'BUNKMS_LEASE_TTL_MS',
    'BUNKMS_KEK_FILE',
  ])
    expect(faulty).toThrow(name);
  for (const value of ['99999', '80a', 'secret', 'loud']) expect(faulty).not.toThrow(value);
});

it.each([
  ['BUNKMS_SQLITE_DEADLINE_MS', 200, 60_000],
  ['BUNKMS_CRYPTO_PER_SECOND', 0, 1_000_000],
])('names %s and its bounds when its value is outside them', (name, min, max) => {
  for (const value of [min - 1, max + 1])
    expect(() => readConfig({ BUNKMS_KEK: KEK, [name]: String(value) })).toThrow(
      `${name}: must be a whole number from ${min} to ${max}`,
    );
});

it('names BUNKMS_TRUSTED_PROXIES and its format when a value is neither an address nor a subnet', () => {
  for (const value of ['proxy', '10.0.0.0/33', '::1/129'])
    expect(() => readConfig({ BUNKMS_KEK: KEK, BUNKMS_TRUSTED_PROXIES: value })).toThrow(
      /^ *BUNKMS_TRUSTED_PROXIES\S*: must be IP addresses or subnets/m,
    );
});

it.each([
  ['neither', {}],
  ['both', { BUNKMS_KEK: KEK, BUNKMS_KEK_FILE: '/k' }],
])('requires exactly one source of the KEK, not %s', (_which, environment) => {
  expect(() => readConfig(environment)).toThrow(/either BUNKMS_KEK_FILE or BUNKMS_KEK/);
});

it('refuses one host and port for both listeners, and allows port 0 for both', () => {
  expect(() => readConfig({ BUNKMS_KEK: KEK, BUNKMS_PORT: '8082' })).toThrow(/same host and port/);
  expect(readConfig({ BUNKMS_KEK: KEK, BUNKMS_PORT: '0', BUNKMS_INTERNAL_PORT: '0' })).toMatchObject({
    port: 0,
  });
  expect(readConfig({ BUNKMS_KEK: KEK, BUNKMS_PORT: '8082', BUNKMS_HOST: '10.0.0.1' })).toMatchObject({
    port: 8082,
  });
});

const INTERNAL_TLS = {
  BUNKMS_INTERNAL_TLS_CERT_FILE: '/c',
  BUNKMS_INTERNAL_TLS_KEY_FILE: '/k',
  BUNKMS_INTERNAL_CLIENT_CA_FILE: '/a',
};

it('accepts TLS files for either listener', () => {
  expect(
    readConfig({
      BUNKMS_KEK: KEK,
      BUNKMS_TLS_CERT_FILE: '/c',
      BUNKMS_TLS_KEY_FILE: '/k',
      ...INTERNAL_TLS,
      BUNKMS_INTERNAL_CLIENT_NAMES: 'bundoc, probe',
    }),
  ).toMatchObject({
    tls: { cert: { variable: 'BUNKMS_TLS_CERT_FILE', path: '/c' }, key: { path: '/k' }, ca: undefined },
    internalTls: { cert: { path: '/c' }, key: { path: '/k' }, ca: { path: '/a' } },
    internalClientNames: ['bundoc', 'probe'],
  });
});

it('refuses an incomplete set of TLS files, and names each missing one', () => {
  const faulty = () =>
    readConfig({
      BUNKMS_KEK: KEK,
      BUNKMS_TLS_KEY_FILE: '/planted',
      BUNKMS_INTERNAL_TLS_CERT_FILE: '/planted',
    });
  for (const missing of [
    'BUNKMS_TLS_CERT_FILE: ',
    'BUNKMS_INTERNAL_TLS_KEY_FILE: ',
    'BUNKMS_INTERNAL_CLIENT_CA_FILE: ',
  ])
    expect(faulty).toThrow(missing);
  expect(faulty).not.toThrow('planted');
  const { BUNKMS_INTERNAL_CLIENT_CA_FILE: _, ...oneSided } = INTERNAL_TLS;
  expect(() => readConfig({ BUNKMS_KEK: KEK, ...oneSided })).toThrow('BUNKMS_INTERNAL_CLIENT_CA_FILE: ');
  expect(() => readConfig({ BUNKMS_KEK: KEK, BUNKMS_INTERNAL_CLIENT_NAMES: 'a' })).toThrow(
    'BUNKMS_INTERNAL_CLIENT_NAMES: ',
  );
});

describe('a store in PostgreSQL', () => {
  const storageOf = (BUNKMS_STORAGE: string, more = {}) =>
    readConfig({ BUNKMS_KEK: KEK, BUNKMS_STORAGE, ...more }).storage;

  it('a store in SQLite gets its deadline from a variable', () => {
    expect(storageOf('sqlite', { BUNKMS_SQLITE_DEADLINE_MS: '7000' })).toEqual({
      kind: 'sqlite',
      deadlineMs: 7_000,
    });
  });

  it('is named by a URL', () => {
    expect(storageOf('postgres://kms:p%40ss@db.example/keys')).toEqual({
      kind: 'postgres',
      settings: {
        variable: 'BUNKMS_STORAGE',
        address: {
          host: 'db.example',
          port: 5_432,
          database: 'keys',
          user: 'kms',
          password: 'p@ss',
          isPooled: false,
        },
        connectionsMax: 10,
        connectTimeoutMs: 2_000,
        statementTimeoutMs: 2_000,
        lockTimeoutMs: 1_500,
        idleInTransactionTimeoutMs: 3_000,
        deadlineMs: 3_000,
      },
    });
    expect(storageOf('postgresql://kms@127.0.0.1:6543/keys')).toMatchObject({
      settings: { address: { host: '127.0.0.1', port: 6_543, password: undefined, sslMode: undefined } },
    });
    expect(storageOf('postgres://kms@[::1]/keys?sslmode=verify-full')).toMatchObject({
      settings: { address: { host: '::1', sslMode: 'verify-full' } },
    });
    expect(storageOf('postgres://kms@db.example/keys?sslmode=disable')).toMatchObject({
      settings: { address: { sslMode: 'disable' } },
    });
  });

  it('gets its files from variables, and its limits from the URL', () => {
    const more = {
      BUNKMS_POSTGRES_PASSWORD_FILE: '/run/secrets/pg',
      BUNKMS_POSTGRES_CA_FILE: '/etc/pg-ca.pem',
    };
    expect(storageOf('postgres://kms@db/keys?connections=5&timeout_ms=6000', more)).toMatchObject({
      settings: {
        passwordFile: { variable: 'BUNKMS_POSTGRES_PASSWORD_FILE', path: '/run/secrets/pg' },
        caFile: { variable: 'BUNKMS_POSTGRES_CA_FILE', path: '/etc/pg-ca.pem' },
        connectionsMax: 5,
        connectTimeoutMs: 4_000,
        statementTimeoutMs: 4_000,
        lockTimeoutMs: 3_000,
        idleInTransactionTimeoutMs: 6_000,
        deadlineMs: 6_000,
      },
    });
  });

  it.each([
    'postgres://',
    'postgres:secret',
    'postgres://secret@/keys',
    'postgres://db.example/secret',
    'postgres://secret@db.example',
    'postgres://secret@db.example/',
    'postgres://secret@db.example/a/b',
    'postgres://kms:secret@db.example/keys?sslmode=require',
    'postgres://kms:secret@db.example/keys?host=/tmp',
    'postgres://kms:secret@db.example/keys?pooler=transaction',
    'postgres://kms:secret@db.example/keys#fragment',
    'postgres://kms:%zzsecret@/keys',
    'mysql://kms:secret@db.example/keys',
    'secret',
  ])('refuses the URL %s, and does not quote it', (text) => {
    const message = /BUNKMS_STORAGE: must be "sqlite" or postgres:/;
    expect(() => storageOf(text)).toThrow(message);
    expect(() => storageOf(text)).not.toThrow(/secret/);
  });
});

it('every refusal of a setting names its variable and says in plain words what it must be', () => {
  const faults = VARIABLES.flatMap((name) => {
    try {
      readConfig({ BUNKMS_KEK: KEK, [name]: ' planted ' });
      return [];
    } catch (error) {
      return error instanceof ConfigError ? error.faults.filter((fault) => fault.startsWith(name)) : ['?'];
    }
  });
  expect(faults.length).toBeGreaterThan(10);
  for (const fault of faults)
    expect(fault).toMatch(/^[A-Z_]+(\.\d+)?: (must be|goes together with|give either|is for a service) /);
  expect(faults.join()).not.toMatch(/planted|invalid/i);
});

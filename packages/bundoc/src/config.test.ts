import { ConfigError } from '@bundoc/shared/process/config';
import { describe, expect, it } from 'vitest';
import { readConfig, VARIABLES } from './config.ts';
import { GroupQuota } from './engine/commit/quota.ts';
import { defaultCacheBytes, defaultOpenBytes, defaultSnapshotBytes } from './process-limits.ts';

describe('the configuration', () => {
  it('has a default for everything but the service token', () => {
    expect(readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token' })).toEqual({
      host: '127.0.0.1',
      port: 8080,
      dataDir: './data',
      storage: { kind: 'files' },
      moveTo: undefined,
      archive: undefined,
      tls: undefined,
      kms: { url: 'http://127.0.0.1:8082', tokenFile: '/run/token', tls: undefined, deadlineMs: 4_500 },
      keyTtlMs: 900_000,
      documentBytesMax: 1_048_576,
      batchBytesMax: 16_777_216,
      cacheBytes: defaultCacheBytes(),
      snapshotBytes: defaultSnapshotBytes(),
      logBytes: 268_435_456,
      openBytes: defaultOpenBytes(),
      processorMsPerProject: 0,
      quota: { documentsMax: 0, bytesMax: 10_737_418_240 },
      shares: {
        ofAddressMax: 256,
      },
      corsOrigins: [],
      console: true,
      drainMs: 3_000,
      logLevel: 'info',
    });
  });

  it('refuses an archive for PostgreSQL, which has its own', () => {
    const read = () =>
      readConfig({
        BUNDOC_KMS_TOKEN_FILE: 'token',
        BUNDOC_STORAGE: 'postgres://u@db/bundoc',
        BUNDOC_ARCHIVE: '/archive',
      });
    expect(read).toThrow('BUNDOC_ARCHIVE: is for a service on files');
  });

  it('refuses a user or password in the URL of BunKMS, which the log names, and does not repeat it', () => {
    for (const credentials of ['planted:planted', 'planted', ':planted']) {
      const read = () =>
        readConfig({ BUNDOC_KMS_TOKEN_FILE: 'token', BUNDOC_KMS_URL: `http://${credentials}@kms:8082` });
      expect(read).toThrow('BUNDOC_KMS_URL: must have no user and no password');
      expect(read).not.toThrow('planted');
    }
  });

  it('lists every fault at once and repeats no value', () => {
    const environment = {
      BUNDOC_PORT: '70000',
      BUNDOC_MAX_DOCUMENT_BYTES: 'planted',
      BUNDOC_KMS_URL: 'file:///planted',
      BUNDOC_STORAGE: 'planted',
      BUNDOC_MOVE_TO: 'http://planted/db',
      BUNDOC_CORS_ORIGINS: 'https://planted/',
      BUNDOC_PROCESSOR_MS_PER_PROJECT: '1001',
      BUNDOC_PROJECT_DOCUMENTS_MAX: 'planted',
      BUNDOC_PROJECT_BYTES_MAX: '1e9',
      BUNDOC_DRAIN_MS: '600001',
    };
    const message = (() => {
      try {
        readConfig(environment);
        return '';
      } catch (error) {
        return String(error);
      }
    })();
    for (const name of [...Object.keys(environment), 'BUNDOC_KMS_TOKEN_FILE'])
      expect(message).toContain(name);
    expect(message).not.toContain('planted');
  });

  it('names the variable of a share and its bounds when a value is outside them', () => {
    const faultOf = (name: string, value: string) => () =>
      readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token', [name]: value });
    for (const [name, min, max] of [
      ['BUNDOC_CONNECTIONS_PER_ADDRESS', 1, 1_000_000],
      ['BUNDOC_LOG_BYTES', 67_108_864, 1_099_511_627_776],
      ['BUNDOC_PROCESSOR_MS_PER_PROJECT', 0, 1_000],
    ] as const)
      for (const value of [min - 1, max + 1])
        expect(faultOf(name, String(value))).toThrow(`${name}: must be a whole number from ${min} to ${max}`);
    for (const value of ['proxy', '10.0.0.0/33', '10.0.0.1/', '::1/129'])
      expect(faultOf('BUNDOC_TRUSTED_PROXIES', value)).toThrow(
        /^ *BUNDOC_TRUSTED_PROXIES\S*: must be IP addresses or subnets/m,
      );
  });

  it('parses trusted proxies as addresses and subnets', () => {
    const { isProxy } = readConfig({
      BUNDOC_KMS_TOKEN_FILE: '/run/token',
      BUNDOC_TRUSTED_PROXIES: '10.0.0.7, 192.0.2.0/24,fd00:1::/64',
    }).shares;
    for (const address of ['10.0.0.7', '::ffff:10.0.0.7', '192.0.2.200', 'fd00:1::9'])
      expect(isProxy?.(address), address).toBe(true);
    for (const address of ['10.0.0.8', '192.0.3.1', 'fd00:2::9', 'x'])
      expect(isProxy?.(address), address).toBe(false);
  });

  const quotaOf = (environment: Record<string, string>) =>
    readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token', ...environment }).quota;

  it('limits the bytes of each project unless 0 switches that off', () => {
    const usual = quotaOf({});
    const full = new GroupQuota(usual!, { documents: 1, bytes: 10 * 1_073_741_824 });
    expect(() => full.admit({ documents: 0, bytes: 1 })).toThrow('quota_exceeded');
    full.admit({ documents: -1, bytes: -1_000 });
    full.admit({ documents: 1, bytes: 1_000 });
    expect(quotaOf({ BUNDOC_PROJECT_BYTES_MAX: '' })).toEqual(usual);
    expect(quotaOf({ BUNDOC_PROJECT_BYTES_MAX: '0' })).toBeUndefined();
  });

  it('accepts a quota of either kind alone', () => {
    expect(quotaOf({ BUNDOC_PROJECT_DOCUMENTS_MAX: '0', BUNDOC_PROJECT_BYTES_MAX: '0' })).toBeUndefined();
    expect(quotaOf({ BUNDOC_PROJECT_DOCUMENTS_MAX: '7', BUNDOC_PROJECT_BYTES_MAX: '0' })).toEqual({
      documentsMax: 7,
      bytesMax: 0,
    });
    expect(quotaOf({ BUNDOC_PROJECT_BYTES_MAX: '9' })).toEqual({ documentsMax: 0, bytesMax: 9 });
  });

  it('accepts a target for moves only for a service on files', () => {
    const token = { BUNDOC_KMS_TOKEN_FILE: '/run/token' };
    const to = 'postgres://b@db.internal/bundoc?sslmode=verify-full';
    const { storage, moveTo } = readConfig({ ...token, BUNDOC_MOVE_TO: to });
    expect(storage).toEqual({ kind: 'files' });
    expect(moveTo).toMatchObject({
      address: { host: 'db.internal', database: 'bundoc', sslMode: 'verify-full' },
    });
    for (const wrong of ['files', 'postgres://b@db.internal', `${to}&host=other`])
      expect(() => readConfig({ ...token, BUNDOC_MOVE_TO: wrong })).toThrow(
        'BUNDOC_MOVE_TO: must be postgres://',
      );
    expect(() => readConfig({ ...token, BUNDOC_STORAGE: to, BUNDOC_MOVE_TO: to })).toThrow(
      'BUNDOC_MOVE_TO: is for a service on files: unset it where BUNDOC_STORAGE is set',
    );
  });

  const storageOf = (environment: Record<string, string>) =>
    readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token', ...environment }).storage;

  it('accepts a PostgreSQL URL and a CA file, and hides its parameters from the client', () => {
    const place = 'postgres://app:secret@db.example/bundoc';
    const address = {
      host: 'db.example',
      port: 5_432,
      database: 'bundoc',
      user: 'app',
      password: 'secret',
      sslMode: undefined,
    };
    expect(storageOf({ BUNDOC_STORAGE: place })).toMatchObject({
      kind: 'postgres',
      address,
      isPooled: false,
    });
    for (const sslMode of ['disable', 'verify-full'])
      expect(storageOf({ BUNDOC_STORAGE: `${place}?sslmode=${sslMode}` })).toMatchObject({
        address: { ...address, sslMode },
      });
    const caFile = { variable: 'BUNDOC_POSTGRES_CA_FILE', path: '/ca.pem' };
    expect(storageOf({ BUNDOC_STORAGE: place, BUNDOC_POSTGRES_CA_FILE: '/ca.pem' })).toMatchObject({
      caFile,
    });
  });

  it('takes connections, timeouts and a pooler from the URL', () => {
    const place = 'postgres://app@db.example/bundoc';
    expect(storageOf({ BUNDOC_STORAGE: place })).toMatchObject({
      connectionsMax: 20,
      isPooled: false,
      connectTimeoutMs: 3_000,
      statementTimeoutMs: 5_000,
      idleInTransactionTimeoutMs: 5_000,
    });
    const parameters = 'connections=30&timeout_ms=10000&pooler=transaction';
    expect(storageOf({ BUNDOC_STORAGE: `${place}?${parameters}` })).toMatchObject({
      connectionsMax: 30,
      isPooled: true,
      connectTimeoutMs: 6_000,
      statementTimeoutMs: 10_000,
      idleInTransactionTimeoutMs: 10_000,
    });
  });

  it('refuses a URL that is not for PostgreSQL, or would connect differently than it seems', () => {
    for (const url of [
      'postgres://',
      'postgres:///bundoc',
      'mysql://db/bundoc',
      'postgres://db/',
      'postgres://app@db/x?sslmode=no-verify',
      'postgres://app@db/x?sslmode=require',
      'postgres://db/x',
      'postgres://app@db/x?host=other',
    ])
      expect(() => storageOf({ BUNDOC_STORAGE: url }), url).toThrow('BUNDOC_STORAGE');
  });

  it('accepts certificates for an https BunKMS, and refuses half of a pair and certificates without https', () => {
    const environment = {
      BUNDOC_KMS_TOKEN_FILE: '/run/token',
      BUNDOC_KMS_URL: 'https://bunkms-internal:8082',
      BUNDOC_KMS_CA_FILE: '/ca',
    };
    const pair = { BUNDOC_KMS_CLIENT_CERT_FILE: '/c', BUNDOC_KMS_CLIENT_KEY_FILE: '/k' };
    expect(readConfig(environment).kms.tls).toMatchObject({ cert: undefined, ca: { path: '/ca' } });
    expect(readConfig({ ...environment, ...pair }).kms.tls).toMatchObject({
      cert: { path: '/c' },
      key: { path: '/k' },
      ca: { path: '/ca' },
    });
    expect(() => readConfig({ ...environment, BUNDOC_KMS_CLIENT_CERT_FILE: '/c' })).toThrow(
      'BUNDOC_KMS_CLIENT_KEY_FILE: ',
    );
    expect(() => readConfig({ ...environment, BUNDOC_TLS_KEY_FILE: '/k' })).toThrow('BUNDOC_TLS_CERT_FILE: ');
    expect(() => readConfig({ ...environment, BUNDOC_KMS_URL: 'http://bunkms-internal:8082' })).toThrow(
      'BUNDOC_KMS_URL: ',
    );
  });
});

it('every refusal of a setting names its variable and says in plain words what it must be', () => {
  const faults = VARIABLES.flatMap((name) => {
    try {
      readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token', [name]: ' planted ' });
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

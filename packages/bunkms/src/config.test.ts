import { ConfigError } from '@bundoc/shared/config';
import { expect, test } from 'vitest';
import { readConfig } from './config.ts';

const KEK = 'aa'.repeat(32);

test('has the documented defaults', () => {
  expect(readConfig({ BUNKMS_KEK: KEK })).toEqual({
    host: '127.0.0.1',
    port: 8081,
    internalHost: '127.0.0.1',
    internalPort: 8082,
    tls: undefined,
    internalTls: undefined,
    internalClientNames: undefined,
    dataDir: './data/kms',
    kek: { kind: 'inline', text: KEK },
    auditShip: undefined,
    leaseTtlMs: 900_000,
    limits: {
      exportsPerToken: 2_000,
      exportsPerKey: 200,
      cryptoPerToken: 5_000,
      cryptoPerKey: 5_000,
      renewalsPerMinute: 30,
    },
    logLevel: 'info',
  });
});

test('takes an empty variable for an absent one', () => {
  expect(readConfig({ BUNKMS_KEK: '', BUNKMS_KEK_FILE: '/k', BUNKMS_PORT: '' })).toMatchObject({
    port: 8081,
    kek: { kind: 'file', path: '/k' },
  });
});

test.each([
  ['stdout', { kind: 'stdout' }],
  ['file:/var/log/audit.ndjson', { kind: 'file', path: '/var/log/audit.ndjson' }],
])('knows where to copy the audit chain: %s', (text, auditShip) => {
  expect(readConfig({ BUNKMS_KEK: KEK, BUNKMS_AUDIT_SHIP: text })).toMatchObject({ auditShip });
});

test('lists all faults at once, and repeats no value', () => {
  const faulty = () =>
    readConfig({
      BUNKMS_PORT: '99999',
      BUNKMS_INTERNAL_PORT: '80a',
      BUNKMS_STORAGE: 'mongodb://secret@host',
      BUNKMS_LOG_LEVEL: 'loud',
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

test.each([
  ['neither', {}],
  ['both', { BUNKMS_KEK: KEK, BUNKMS_KEK_FILE: '/k' }],
])('wants exactly one source of the KEK, not %s', (_which, environment) => {
  expect(() => readConfig(environment)).toThrow(/either BUNKMS_KEK_FILE or BUNKMS_KEK/);
});

test('refuses one host and port for both listeners, and allows port 0 for both', () => {
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

test('takes the files of TLS for either listener', () => {
  expect(
    readConfig({
      ...{ BUNKMS_KEK: KEK, BUNKMS_TLS_CERT_FILE: '/c', BUNKMS_TLS_KEY_FILE: '/k', ...INTERNAL_TLS },
      BUNKMS_INTERNAL_CLIENT_NAMES: 'bundoc, probe',
    }),
  ).toMatchObject({
    tls: { cert: { variable: 'BUNKMS_TLS_CERT_FILE', path: '/c' }, key: { path: '/k' }, ca: undefined },
    internalTls: { cert: { path: '/c' }, key: { path: '/k' }, ca: { path: '/a' } },
    internalClientNames: ['bundoc', 'probe'],
  });
});

test('refuses half of a set of TLS files, and names each that is missing', () => {
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

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { devSetup, initArguments } from './dev-setup.mjs';

const root = '/somewhere/with space';

describe('the dev setup', () => {
  it('puts everything below ./data and on 127.0.0.1 when nothing is set', () => {
    const setup = devSetup(root, {});
    expect(setup.bunkmsEnv).toEqual({
      NODE_ENV: 'development',
      BUNKMS_HOST: '127.0.0.1',
      BUNKMS_PORT: '8081',
      BUNKMS_INTERNAL_HOST: '127.0.0.1',
      BUNKMS_INTERNAL_PORT: '8082',
      BUNKMS_DATA_DIR: join(root, 'data/kms'),
      BUNKMS_DRAIN_MS: '0',
      BUNKMS_KEK_FILE: join(root, 'data/dev/kek'),
    });
    expect(setup.bundocEnv).toEqual({
      NODE_ENV: 'development',
      BUNDOC_HOST: '127.0.0.1',
      BUNDOC_PORT: '8080',
      BUNDOC_DATA_DIR: join(root, 'data'),
      BUNDOC_KMS_URL: 'http://127.0.0.1:8082',
      BUNDOC_KMS_TOKEN_FILE: join(root, 'data/dev/kms-token'),
      BUNDOC_DRAIN_MS: '0',
    });
    expect(initArguments(setup)).toEqual(['init', '--create-kek', '--service-token', setup.tokenFile]);
  });

  it('prefers every variable that is set, and treats an empty one as absent', () => {
    const setup = devSetup(root, {
      BUNDOC_PORT: '9080',
      BUNDOC_DATA_DIR: '/mnt/data',
      BUNDOC_KMS_DEADLINE_MS: '1000',
      BUNKMS_INTERNAL_PORT: '9082',
      BUNKMS_HOST: '',
    });
    expect(setup.bundocEnv).toMatchObject({
      BUNDOC_PORT: '9080',
      BUNDOC_DATA_DIR: '/mnt/data',
      BUNDOC_KMS_DEADLINE_MS: '1000',
      BUNDOC_KMS_URL: 'http://127.0.0.1:9082',
    });
    expect(setup.bunkmsEnv).toMatchObject({ BUNKMS_HOST: '127.0.0.1', BUNKMS_DATA_DIR: '/mnt/data/kms' });
    expect(setup.bundocApi.url).toBe('http://127.0.0.1:9080');
  });

  it('passes no variables of one service to the other, above all not the KEK', () => {
    const setup = devSetup(root, { BUNKMS_KEK: 'secret', BUNDOC_LOG_LEVEL: 'debug', LANG: 'C' });
    expect(Object.keys(setup.bundocEnv).filter((name) => name.startsWith('BUNKMS_'))).toEqual([]);
    expect(Object.keys(setup.bunkmsEnv).filter((name) => name.startsWith('BUNDOC_'))).toEqual([]);
    expect(setup.bundocEnv).toMatchObject({ LANG: 'C' });
    expect(setup.bunkmsEnv).toMatchObject({ LANG: 'C', BUNKMS_KEK: 'secret' });
  });

  it('creates no KEK file when the KEK comes from a variable', () => {
    const setup = devSetup(root, { BUNKMS_KEK: 'secret' });
    expect(setup.bunkmsEnv).not.toHaveProperty('BUNKMS_KEK_FILE');
    expect(initArguments(setup)).not.toContain('--create-kek');
  });

  it('refuses TLS, for which it has no certificates, and does not change NODE_ENV', () => {
    expect(() => devSetup(root, { BUNKMS_INTERNAL_TLS_CERT_FILE: '/c' })).toThrow(
      'BUNKMS_INTERNAL_TLS_CERT_FILE',
    );
    expect(devSetup(root, { NODE_ENV: 'production' }).bundocEnv).toMatchObject({ NODE_ENV: 'production' });
  });

  it.each(['0', '65536', 'http', '-1'])('refuses the port %s', (port) => {
    expect(() => devSetup(root, { BUNKMS_INTERNAL_PORT: port })).toThrow('BUNKMS_INTERNAL_PORT');
  });

  it.each([
    ['0.0.0.0', 'http://127.0.0.1:8080'],
    ['::', 'http://[::1]:8080'],
    ['::1', 'http://[::1]:8080'],
    ['localhost', 'http://localhost:8080'],
  ])('connects to a service that listens on %s at %s', (host, url) => {
    expect(devSetup(root, { BUNDOC_HOST: host }).bundocApi.url).toBe(url);
  });
});

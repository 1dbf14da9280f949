import { describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';

describe('the configuration', () => {
  it('has a default for everything but the service token', () => {
    expect(readConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token' })).toEqual({
      host: '127.0.0.1',
      port: 8080,
      dataDir: './data',
      kms: { url: 'http://127.0.0.1:8082', tokenFile: '/run/token', ca: undefined },
      keyTtlMs: 900_000,
      documentBytesMax: 1_048_576,
      cacheBytes: 268_435_456,
      logLevel: 'info',
    });
  });

  it('lists every fault at once and repeats no value', () => {
    const environment = {
      BUNDOC_PORT: '70000',
      BUNDOC_KEY_TTL_MS: '900001',
      BUNDOC_MAX_DOCUMENT_BYTES: 'planted',
      BUNDOC_KMS_URL: 'file:///planted',
      BUNDOC_STORAGE: 'planted',
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
});

import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isExportTarget, keyOfExportTarget, versionOfExportTarget } from './export-path.ts';

const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

describe('a request target', () => {
  it.each([
    '/v1/export',
    '/v1/export/',
    '/v1/export/a-dek',
    '/v1/export/a-dek?version=1',
    '/v1/export/a/b',
    '/v1/%65xport/a-dek',
    '/%761/%65%78%70%6F%72%74/a-dek',
    '/v1%2Fexport/a-dek',
    '/v1/export/%zz',
    '/v1/export/%ff',
    'http://127.0.0.1:8082/v1/export/a-dek',
    '/v1/export#x',
  ])('%s is an access to export', (target) => {
    expect(isExportTarget(target)).toBe(true);
  });

  it.each([
    '/',
    '',
    '*',
    '/v1/keys/a',
    '/v1/EXPORT/a',
    '/v1/keys?x=/v1/export/a',
    '/v1/%2565xport/a',
    '//v1/export/a',
  ])('%s is none', (target) => {
    expect(isExportTarget(target)).toBe(false);
  });
});

describe('the key of a target', () => {
  it.each([
    ['/v1/export/a-dek', 'a-dek'],
    ['/v1/export/a-dek?x=1', 'a-dek'],
    ['/v1/%65xport/%61-dek', 'a-dek'],
    ['http://h/v1/export/a-dek', 'a-dek'],
  ])('%s is named', (target, name) => {
    expect(keyOfExportTarget(target)).toBe(name);
  });

  it.each([
    ['/v1/export/A-dek', 'A-dek'],
    ['/v1/export/..%2f..', '../..'],
    ['/v1/export/a%00b', 'a\0b'],
    ['/v1/export/%ff', '%ff'],
    [`/v1/export/${'a'.repeat(129)}`, 'a'.repeat(129)],
  ])('%s is hashed', (target, text) => {
    expect(keyOfExportTarget(target)).toBe(sha256(text));
  });

  it('is absent when none is named', () => {
    expect(keyOfExportTarget('/v1/export')).toBeUndefined();
    expect(keyOfExportTarget('/v1/export/?a=b')).toBeUndefined();
  });

  it('never contains text that a stranger chose, except valid key names', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const key = keyOfExportTarget(`/v1/export/${text}`);
        if (key !== undefined) expect(key).toMatch(/^(sha256:[0-9a-f]{64}|[a-z0-9][a-z0-9._-]{0,127})$/);
      }),
    );
  });
});

describe('the version of a target', () => {
  it.each([
    ['/v1/export/a-dek?version=1', 1],
    ['/v1/export/a-dek?version=1000', 1_000],
    ['/v1/export/a-dek?%76ersion=%32', 2],
    ['/v1/export/a-dek?x=1&version=3#version=4', 3],
    ['http://h/v1/export/a-dek?version=5', 5],
  ])('%s is %i', (target, version) => {
    expect(versionOfExportTarget(target)).toBe(version);
  });

  it.each([
    '/v1/export/a-dek',
    '/v1/export/a-dek?',
    '/v1/export/a-dek?version',
    '/v1/export/a-dek?version=0',
    '/v1/export/a-dek?version=1001',
    '/v1/export/a-dek?version=01',
    '/v1/export/a-dek?version=1&version=1',
    '/v1/export/a-dek?versions=1',
    '/v1/export/a-dek#?version=1',
    '/v1/export/version=1',
  ])('%s has none', (target) => {
    expect(versionOfExportTarget(target)).toBeUndefined();
  });

  it('is always a valid version or absent, and parsing never throws', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const version = versionOfExportTarget(`/v1/export/a?version=${text}`);
        if (version !== undefined) expect(Number.isInteger(version) && version >= 1).toBe(true);
      }),
    );
  });
});

import { describe, expect, it } from 'vitest';
import { ConfigError, type Environment } from '../process/config.ts';
import { systemClock } from '../runtime/clock.ts';
import { FolderStorage } from './folder-storage.ts';
import { openObjectStorage } from './open.ts';

const open = (setting: string, environment: Environment = {}) =>
  openObjectStorage(setting, { variable: 'BUNDOC_ARCHIVE', environment, clock: systemClock });

function faultsOf(setting: string): string {
  try {
    open(setting);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.join('\n');
    throw error;
  }
  throw new Error('it is accepted');
}

describe('the setting of an object storage', () => {
  it.each(['/mnt/archive', 'archive', './archive'])('may be the folder %s', (setting) => {
    expect(open(setting)).toBeInstanceOf(FolderStorage);
  });

  it.each([
    ['s3://bucket?region=eu-central-1', 's3://bucket'],
    ['s3://bucket/a/b/?region=eu-central-1', 's3://bucket/a/b'],
    ['s3://buck.et/a?endpoint=https://s3.example:9000', 's3://buck.et/a at s3.example:9000'],
    ['s3://bucket/a?endpoint=http://[::1]:9000/&path-style=false', 's3://bucket/a at [::1]:9000'],
  ])('may be a bucket, and its name has no parameters: %s', (setting, name) => {
    expect(open(setting).name).toBe(name);
  });

  it('may be no folder inside or above the data folder that it has copies of', () => {
    const beside = (setting: string, dataDir: string) => () =>
      openObjectStorage(setting, { variable: 'V', environment: {}, clock: systemClock, dataDir });
    for (const [setting, dataDir] of [
      ['data', 'data'],
      ['./data/archive', 'data/'],
      ['/mnt/data/a/b', '/mnt/data'],
      ['/mnt/data/../data', '/mnt/data'],
    ] as const)
      expect(beside(setting, dataDir)).toThrow('V: must be outside of the data folder');
    expect(beside('/mnt', '/mnt/data')).toThrow('V: must not contain the data folder');
    for (const [setting, dataDir] of [
      ['/mnt/data-archive', '/mnt/data'],
      ['s3://data/x?region=eu-central-1', 's3:/data'],
    ] as const)
      expect(beside(setting, dataDir)).not.toThrow();
  });

  it('takes the region of the usual variable', () => {
    expect(open('s3://bucket', { AWS_REGION: 'eu-central-1' }).name).toBe('s3://bucket');
    expect(faultsOf('s3://bucket')).toBe('BUNDOC_ARCHIVE: region: is required, or an endpoint');
  });

  it.each([
    ['', 'must be the path of a folder, or s3://bucket/prefix'],
    ['https://s3.example/bucket', 'must be the path of a folder, or s3://bucket/prefix'],
    ['file:///archive', 'must be the path of a folder, or s3://bucket/prefix'],
    ['s3://', 'has no valid name of a bucket'],
    ['s3://Bucket', 'has no valid name of a bucket'],
    ['s3://AKIAEXAMPLE:planted@bucket', 'without a credential, a port or a fragment'],
    ['s3://bucket:443', 'without a credential, a port or a fragment'],
    ['s3://bucket/a//b', 'the prefix may have'],
    ['s3://bucket/a%20b', 'the prefix may have'],
    [`s3://bucket/${'a'.repeat(401)}`, 'the prefix may have'],
    [
      's3://bucket?regoin=planted',
      'regoin (did you mean region?): unknown; known are endpoint, region, path-style, ca, credentials',
    ],
    ['s3://bucket?region=eu-central-1&region=planted', 'region: is given twice'],
    ['s3://bucket?region=EU', 'region: must be a region'],
    ['s3://bucket?credentials=', 'credentials: must not be empty'],
    ['s3://bucket?path-style=yes', 'path-style: must be true or false'],
    ['s3://bucket?endpoint=s3.example', 'endpoint: must be a URL'],
    ['s3://bucket?endpoint=http://s3.example', 'endpoint: must be https, or name this machine'],
    ['s3://bucket?endpoint=https://user:planted@s3.example', 'endpoint: must have no credential'],
  ])('is refused by its variable, without a value: %s', (setting, fault) => {
    const faults = faultsOf(setting);
    expect(faults).toContain(fault);
    expect(faults).not.toContain('planted');
    for (const line of faults.split('\n')) expect(line).toMatch(/^BUNDOC_ARCHIVE: /);
  });
});

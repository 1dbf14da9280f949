import { resolve } from 'node:path';
import { describeUnknown } from '../logs/unknown-names.ts';
import { ConfigError, type Environment } from '../process/config.ts';
import type { Clock } from '../runtime/clock.ts';
import { FolderStorage } from './folder-storage.ts';
import { isKey, type ObjectStorage } from './port.ts';
import type { S3CallsOptions } from './s3-calls.ts';
import { S3Storage, type S3StorageOptions } from './s3-storage.ts';

export interface OpenOptions extends Pick<S3CallsOptions, 'random' | 'sleep' | 'bounds'> {
  /** The variable that has the setting, for messages. */
  readonly variable: string;
  /** May have the usual variables of AWS. */
  readonly environment: Environment;
  /** A folder whose copies the target is for: neither may be inside of the other. */
  readonly dataDir?: string;
  readonly clock: Clock;
  /** As of {@link S3StorageOptions}; tests set it. */
  readonly pageKeys?: number;
}

const SCHEME = /^[a-z][a-z\d+.-]*:/i;
const PARAMETERS = ['endpoint', 'region', 'path-style', 'ca', 'credentials'] as const;
const BUCKET = /^[a-z\d][a-z\d.-]{1,61}[a-z\d]$/;
const REGION = /^[a-z\d-]{1,32}$/;
const PREFIX_CHARS_MAX = 400;
const LOOPBACK = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/**
 * Opens the target that a setting names: the path of a folder, or `s3://bucket/prefix?…` with these
 * parameters.
 *
 * | parameter | default |
 * |---|---|
 * | `endpoint`: https URL of a service; http on this machine only | AWS in the region |
 * | `region` | `AWS_REGION`; `us-east-1` with an endpoint |
 * | `path-style`: whether the bucket is in the path, not in the host | `true` with an endpoint |
 * | `ca`: file with the authorities of its certificate, in PEM | those of the system |
 * | `credentials`: file in the shared credentials format of AWS | variables of AWS |
 *
 * Both files are read again when they change. Nothing is read, written or asked before the first operation,
 * so a target that is away prevents no start.
 *
 * @throws ConfigError with every fault. It names the variable, and quotes no value.
 */
export function openObjectStorage(setting: string, options: OpenOptions): ObjectStorage {
  const { variable, clock, dataDir, ...ports } = options;
  if (/^s3:/i.test(setting)) return new S3Storage({ ...ports, clock, ...readS3(setting, options) });
  if (setting === '' || setting.includes('\0') || SCHEME.test(setting))
    throw new ConfigError([`${variable}: must be the path of a folder, or s3://bucket/prefix`]);
  const path = resolve(setting);
  if (dataDir !== undefined && `${path}/`.startsWith(`${resolve(dataDir)}/`))
    throw new ConfigError([`${variable}: must be outside of the data folder, which it would be lost with`]);
  if (dataDir !== undefined && resolve(dataDir).startsWith(`${path}/`))
    throw new ConfigError([`${variable}: must not contain the data folder: give the archive its own folder`]);
  return new FolderStorage({ path, clock });
}

type S3Place = Pick<S3StorageOptions, 'name' | 'url' | 'region' | 'prefix' | 'caFile' | 'credentialsFile'>;

function readS3(setting: string, { variable, environment }: OpenOptions): S3Place {
  const faults: string[] = [];
  const parsed = URL.parse(setting);
  const parameters = parsed?.searchParams ?? new URLSearchParams();
  const read = (name: (typeof PARAMETERS)[number]) => parameters.get(name) ?? undefined;
  const refuseUnless = (isRight: boolean, fault: string) => isRight || faults.push(`${variable}: ${fault}`);

  const { hostname: bucket = '', pathname = '' } = parsed ?? {};
  const prefix = pathname.replace(/^\/|\/$/g, '');
  refuseUnless(
    parsed !== null && parsed.username + parsed.password + parsed.port + parsed.hash === '',
    'must be s3://bucket/prefix, without a credential, a port or a fragment',
  );
  refuseUnless(BUCKET.test(bucket), 'has no valid name of a bucket');
  refuseUnless(
    prefix === '' || (isKey(prefix) && prefix.length <= PREFIX_CHARS_MAX),
    `the prefix may have ${PREFIX_CHARS_MAX} characters of A-Z a-z 0-9 . _ - /`,
  );
  const unknown = [...parameters.keys()].filter((name) => !(PARAMETERS as readonly string[]).includes(name));
  refuseUnless(unknown.length === 0, describeUnknown(unknown, PARAMETERS));
  for (const name of PARAMETERS) {
    refuseUnless(parameters.getAll(name).length < 2, `${name}: is given twice`);
    refuseUnless(read(name) !== '', `${name}: must not be empty`);
  }

  const endpoint = read('endpoint');
  const region =
    read('region') ?? (environment['AWS_REGION'] || (endpoint === undefined ? undefined : 'us-east-1'));
  refuseUnless(region !== undefined, 'region: is required, or an endpoint');
  refuseUnless(region === undefined || REGION.test(region), 'region: must be a region such as eu-central-1');
  const pathStyle = read('path-style');
  refuseUnless(
    pathStyle === undefined || pathStyle === 'true' || pathStyle === 'false',
    'path-style: must be true or false',
  );
  const fault = endpoint === undefined ? undefined : faultOfEndpoint(endpoint);
  refuseUnless(fault === undefined, `endpoint: ${fault}`);
  if (faults.length > 0 || region === undefined) throw new ConfigError(faults);

  const service = new URL(endpoint ?? awsEndpoint(region));
  // A name with dots does not match the certificate of AWS.
  const isInPath =
    pathStyle === undefined ? endpoint !== undefined || bucket.includes('.') : pathStyle === 'true';
  const path = service.pathname.replace(/\/$/, '');
  const at = endpoint === undefined ? '' : ` at ${service.host}`;
  return {
    name: `s3://${[bucket, prefix].filter(Boolean).join('/')}${at}`,
    url: isInPath
      ? `${service.origin}${path}/${bucket}`
      : `${service.protocol}//${bucket}.${service.host}${path}`,
    region,
    prefix: prefix === '' ? '' : `${prefix}/`,
    caFile: read('ca'),
    credentialsFile: read('credentials'),
  };
}

function awsEndpoint(region: string): string {
  return `https://s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`;
}

/** The same rule as for outside keys: plain http stays on this machine, since a session token is sent. */
function faultOfEndpoint(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) return 'must be a URL such as https://s3.example:9000';
  const { protocol, hostname, username, password, search, hash } = url;
  if (username + password + search + hash !== '') return 'must have no credential, query or fragment';
  if (protocol === 'https:' || LOOPBACK.test(hostname)) return undefined;
  return 'must be https, or name this machine: credentials are sent there';
}

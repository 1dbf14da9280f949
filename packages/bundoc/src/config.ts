import { LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import { CONNECTIONS_OF_ADDRESS_MAX, type ConnectionsOptions } from '@bundoc/shared/http/connection-limit';
import {
  allOrNone,
  always,
  type Environment,
  logLevel,
  onOrOff,
  originList,
  parseEnvironment,
  portNumber,
  proxyList,
  wholeNumber,
} from '@bundoc/shared/process/config';
import { drainMs } from '@bundoc/shared/process/drain';
import { type TlsFiles, tlsFilesOf } from '@bundoc/shared/tls/files';
import { z } from 'zod';
import type { Quota } from './engine/commit/quota.ts';
import {
  moveTargetOf,
  type PostgresConfig,
  type StorageConfig,
  storageOf,
  storageVariables,
} from './engine/storage-config.ts';
import { CALL_DEADLINE_MS } from './kms/transport.ts';
import { defaultCacheBytes, defaultOpenBytes, defaultSnapshotBytes } from './process-limits.ts';

const MIB = 1_048_576;
const BATCH_BYTES_MAX = 16 * MIB;
const BYTES_MAX = 1_099_511_627_776;
/**
 * A million documents of 10 KiB. A project with more of them is one that its operator knows of, since its
 * catalog alone takes over 100 MB of memory; and one tenant's mistake does not fill a usual disk.
 */
const PROJECT_BYTES_MAX = 10_240 * MIB;

const OWN_TLS = ['BUNDOC_TLS_CERT_FILE', 'BUNDOC_TLS_KEY_FILE'] as const;
const KMS_CLIENT = ['BUNDOC_KMS_CLIENT_CERT_FILE', 'BUNDOC_KMS_CLIENT_KEY_FILE'] as const;
const KMS_TLS = [...KMS_CLIENT, 'BUNDOC_KMS_CA_FILE'] as const;

function hasNoCredentials(url: string): boolean {
  if (!URL.canParse(url)) return true;
  const { username, password } = new URL(url);
  return username === '' && password === '';
}

const variables = z.object({
  BUNDOC_HOST: z.string().default('127.0.0.1'),
  BUNDOC_PORT: portNumber.default(8080),
  BUNDOC_TLS_CERT_FILE: z.string().optional(),
  BUNDOC_TLS_KEY_FILE: z.string().optional(),
  BUNDOC_DATA_DIR: z.string().default('./data'),
  ...storageVariables,
  BUNDOC_ARCHIVE: z.string().optional(),
  BUNDOC_KMS_URL: z
    .url({ protocol: /^https?$/, message: 'must be the http or https URL of BunKMS’s internal listener' })
    // The log names the URL.
    .refine(hasNoCredentials, { message: 'must have no user and no password' })
    .default('http://127.0.0.1:8082'),
  BUNDOC_KMS_TOKEN_FILE: z.string('is required: the file of the service token for BunKMS'),
  BUNDOC_KMS_CA_FILE: z.string().optional(),
  BUNDOC_KMS_CLIENT_CERT_FILE: z.string().optional(),
  BUNDOC_KMS_CLIENT_KEY_FILE: z.string().optional(),
  BUNDOC_KMS_DEADLINE_MS: wholeNumber(100, 60_000).default(CALL_DEADLINE_MS),
  BUNDOC_MAX_DOCUMENT_BYTES: wholeNumber(1, 16 * MIB).default(MIB),
  BUNDOC_LOG_BYTES: wholeNumber(64 * MIB, BYTES_MAX).default(256 * MIB),
  BUNDOC_PROCESSOR_MS_PER_PROJECT: wholeNumber(0, 1_000).default(0),
  BUNDOC_PROJECT_DOCUMENTS_MAX: wholeNumber(0, 1_000_000_000_000).default(0),
  BUNDOC_PROJECT_BYTES_MAX: wholeNumber(0, 999_999_999_999_999).default(PROJECT_BYTES_MAX),
  BUNDOC_CONNECTIONS_PER_ADDRESS: wholeNumber(1, 1_000_000).default(CONNECTIONS_OF_ADDRESS_MAX),
  BUNDOC_TRUSTED_PROXIES: proxyList.optional(),
  BUNDOC_CORS_ORIGINS: originList.default([]),
  BUNDOC_CONSOLE: onOrOff.default('on'),
  BUNDOC_DRAIN_MS: drainMs,
  BUNDOC_LOG_LEVEL: logLevel.default('info'),
});
/** Variables of the service. */
export const VARIABLES: readonly string[] = Object.keys(variables.shape);

const environmentSchema = allOrNone(allOrNone(variables, OWN_TLS), KMS_CLIENT)
  .refine(
    ({ BUNDOC_STORAGE, BUNDOC_ARCHIVE }) => BUNDOC_ARCHIVE === undefined || BUNDOC_STORAGE === 'files',
    {
      path: ['BUNDOC_ARCHIVE'],
      message: 'is for a service on files: PostgreSQL has its own continuous archiving',
      when: always,
    },
  )
  .refine(
    ({ BUNDOC_STORAGE, BUNDOC_MOVE_TO }) => BUNDOC_MOVE_TO === undefined || BUNDOC_STORAGE === 'files',
    {
      path: ['BUNDOC_MOVE_TO'],
      message: 'is for a service on files: unset it where BUNDOC_STORAGE is set',
      when: always,
    },
  )
  .refine(
    // Client certificates promise a restricted listener, and without https they have no effect.
    (values) =>
      String(values.BUNDOC_KMS_URL).startsWith('https:') ||
      KMS_TLS.every((name) => values[name] === undefined),
    { path: ['BUNDOC_KMS_URL'], message: `must be https with any of ${KMS_TLS.join(', ')}`, when: always },
  );

/** Some members have no variable: a test or a measurement sets them. */
export interface BundocConfig {
  readonly host: string;
  readonly port: number;
  /** Used for files only. */
  readonly dataDir: string;
  readonly storage: StorageConfig;
  /** Where projects in files may be moved at runtime; undefined to disable moves. */
  readonly moveTo: PostgresConfig | undefined;
  /** A folder, or `s3://bucket/prefix?…`; undefined for none. For files only. */
  readonly archive: string | undefined;
  /** TLS of the listener; plain HTTP when absent. */
  readonly tls: TlsFiles | undefined;
  readonly kms: {
    readonly url: string;
    readonly tokenFile: string;
    readonly tls: TlsFiles | undefined;
    /** Maximum duration of one call with all its attempts. */
    readonly deadlineMs: number;
  };
  readonly keyTtlMs: number;
  readonly documentBytesMax: number;
  readonly batchBytesMax: number;
  /** Bytes of the cache of sealed documents; 0 for none. */
  readonly cacheBytes: number;
  /** Bytes of superseded documents that are kept for answers in progress. */
  readonly snapshotBytes: number;
  /** Maximum memory of open projects, bytes; one project may always be open. */
  readonly openBytes: number;
  /** Maximum size of a data folder's log, bytes. */
  readonly logBytes: number;
  /** Processor time for requests of one project, milliseconds a second; 0 for no limit. */
  readonly processorMsPerProject: number;
  /** The quota of each project; undefined for no limit. */
  readonly quota: Quota | undefined;
  readonly shares: ConnectionsOptions;
  /** Origins whose pages may call the API; none by default. */
  readonly corsOrigins: readonly string[];
  /** Whether the console is served. */
  readonly console: boolean;
  /** Time to keep serving after SIGTERM. */
  readonly drainMs: number;
  readonly logLevel: string;
}

/** @throws ConfigError that lists all faults. */
export function readConfig(environment: Environment): BundocConfig {
  const values = parseEnvironment(environmentSchema, environment);
  return {
    host: values.BUNDOC_HOST,
    port: values.BUNDOC_PORT,
    tls: tlsFilesOf(values, OWN_TLS),
    dataDir: values.BUNDOC_DATA_DIR,
    storage: storageOf(values),
    moveTo: moveTargetOf(values),
    archive: values.BUNDOC_ARCHIVE,
    kms: {
      url: values.BUNDOC_KMS_URL,
      tokenFile: values.BUNDOC_KMS_TOKEN_FILE,
      tls: tlsFilesOf(values, KMS_TLS),
      deadlineMs: values.BUNDOC_KMS_DEADLINE_MS,
    },
    keyTtlMs: LEASE_TTL_MS,
    documentBytesMax: values.BUNDOC_MAX_DOCUMENT_BYTES,
    batchBytesMax: BATCH_BYTES_MAX,
    cacheBytes: defaultCacheBytes(),
    snapshotBytes: defaultSnapshotBytes(),
    openBytes: defaultOpenBytes(),
    logBytes: values.BUNDOC_LOG_BYTES,
    processorMsPerProject: values.BUNDOC_PROCESSOR_MS_PER_PROJECT,
    quota: quotaOf(values.BUNDOC_PROJECT_DOCUMENTS_MAX, values.BUNDOC_PROJECT_BYTES_MAX),
    shares: {
      ofAddressMax: values.BUNDOC_CONNECTIONS_PER_ADDRESS,
      isProxy: values.BUNDOC_TRUSTED_PROXIES,
    },
    corsOrigins: values.BUNDOC_CORS_ORIGINS,
    console: values.BUNDOC_CONSOLE === 'on',
    drainMs: values.BUNDOC_DRAIN_MS,
    logLevel: values.BUNDOC_LOG_LEVEL,
  };
}

function quotaOf(documentsMax: number, bytesMax: number): Quota | undefined {
  return documentsMax === 0 && bytesMax === 0 ? undefined : { documentsMax, bytesMax };
}

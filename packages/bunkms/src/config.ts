import { LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import type { ConnectionsOptions } from '@bundoc/shared/http/connection-limit';
import { POSTGRES_URL_FORM, type PostgresAddress, parseAddress } from '@bundoc/shared/postgres/address';
import {
  allOrNone,
  always,
  type Environment,
  type KnownVariables,
  logLevel,
  nameList,
  onOrOff,
  parseEnvironment,
  portNumber,
  proxyList,
  wholeNumber,
} from '@bundoc/shared/process/config';
import { drainMs } from '@bundoc/shared/process/drain';
import { namedFile, type TlsFiles, tlsFilesOf } from '@bundoc/shared/tls/files';
import { z } from 'zod';
import type { LimitRates } from './http/limits.ts';
import type { StorageConfig } from './open-store.ts';
import type { KekSource } from './vault/kek-provider.ts';

/** The target of the audit copy. */
export type ShipTarget = { readonly kind: 'file'; readonly path: string } | { readonly kind: 'stdout' };

export interface BunkmsConfig {
  /** The API listener. */
  readonly host: string;
  readonly port: number;
  /** The internal listener: an address, or a name with exactly one. */
  readonly internalHost: string;
  readonly internalPort: number;
  /** TLS of the API listener; plain HTTP when absent. */
  readonly tls?: TlsFiles | undefined;
  /** Mutual TLS of the internal listener; plain HTTP when absent. */
  readonly internalTls?: TlsFiles | undefined;
  /** Accepted names of client certificates at the internal listener; any when absent. */
  readonly internalClientNames?: readonly string[] | undefined;
  readonly dataDir: string;
  readonly storage: StorageConfig;
  readonly kek: KekSource;
  /** The file that names the keys of other services and devices; none when undefined. */
  readonly outsideKeysFile: string | undefined;
  readonly auditShip: ShipTarget | undefined;
  /** The folder into which the service backs itself up; no backups when undefined. */
  readonly backupTo: string | undefined;
  /** The folder or bucket to which the service ships its backups and its chain; none when undefined. */
  readonly archive: string | undefined;
  /** How long a holder may keep a released key, milliseconds. */
  readonly leaseTtlMs: number;
  readonly limits: LimitRates;
  readonly shares: ConnectionsOptions;
  /** Whether the API listener serves the console. */
  readonly console: boolean;
  /** How long it keeps serving after SIGTERM. */
  readonly drainMs: number;
  readonly logLevel: z.infer<typeof logLevel>;
}

const API_TLS = ['BUNKMS_TLS_CERT_FILE', 'BUNKMS_TLS_KEY_FILE'] as const;
/** The internal listener releases keys, so with TLS its clients need certificates too. */
const INTERNAL_TLS = [
  'BUNKMS_INTERNAL_TLS_CERT_FILE',
  'BUNKMS_INTERNAL_TLS_KEY_FILE',
  'BUNKMS_INTERNAL_CLIENT_CA_FILE',
] as const;

const STORAGE_FORM = `must be "sqlite" or ${POSTGRES_URL_FORM}; BunKMS takes no pooler`;

const RATE_MAX = 1_000_000;
/** Rates for which nobody needs another value. */
const EXPORTS_PER_KEY = 200;
const RENEWALS_PER_MINUTE = 30;

/** The defaults of the parameters of a PostgreSQL URL. */
const POSTGRES_CONNECTIONS_MAX = 10;
const POSTGRES_DEADLINE_MS = 3_000;
/** Parts of the deadline. So one operation can try another connection, or tell why a lock was not free. */
const CONNECT_PART = 2 / 3;
const STATEMENT_PART = 2 / 3;
const LOCK_PART = 1 / 2;

const variables = z
  .object({
    BUNKMS_HOST: z.string().default('127.0.0.1'),
    BUNKMS_PORT: portNumber.default(8081),
    BUNKMS_INTERNAL_HOST: z.string().default('127.0.0.1'),
    BUNKMS_INTERNAL_PORT: portNumber.default(8082),
    BUNKMS_TLS_CERT_FILE: z.string().optional(),
    BUNKMS_TLS_KEY_FILE: z.string().optional(),
    BUNKMS_INTERNAL_TLS_CERT_FILE: z.string().optional(),
    BUNKMS_INTERNAL_TLS_KEY_FILE: z.string().optional(),
    BUNKMS_INTERNAL_CLIENT_CA_FILE: z.string().optional(),
    BUNKMS_INTERNAL_CLIENT_NAMES: nameList.optional(),
    BUNKMS_DATA_DIR: z.string().default('./data/kms'),
    BUNKMS_STORAGE: z
      .string()
      .transform((text) => (text === 'sqlite' ? text : parseAddress(text)))
      .refine((place) => place !== undefined && (place === 'sqlite' || !place.isPooled), STORAGE_FORM)
      .prefault('sqlite'),
    BUNKMS_SQLITE_DEADLINE_MS: wholeNumber(200, 60_000).default(2_000),
    BUNKMS_POSTGRES_PASSWORD_FILE: z.string().optional(),
    BUNKMS_POSTGRES_CA_FILE: z.string().optional(),
    BUNKMS_KEK_FILE: z.string().optional(),
    BUNKMS_KEK: z.string().optional(),
    BUNKMS_OUTSIDE_KEYS_FILE: z.string().optional(),
    BUNKMS_AUDIT_SHIP: z
      .string()
      .regex(/^(stdout|file:.+)$/, 'must be "stdout" or "file:<path>"')
      .transform(shipTargetOf)
      .optional(),
    BUNKMS_BACKUP_TO: z.string().optional(),
    BUNKMS_ARCHIVE: z.string().optional(),
    BUNKMS_LEASE_TTL_MS: wholeNumber(1_000, LEASE_TTL_MS).default(LEASE_TTL_MS),
    BUNKMS_EXPORTS_PER_TOKEN: wholeNumber(0, RATE_MAX).default(2_000),
    BUNKMS_CRYPTO_PER_SECOND: wholeNumber(0, RATE_MAX).default(5_000),
    BUNKMS_DESTRUCTIONS_PER_TOKEN: wholeNumber(0, RATE_MAX).default(1),
    BUNKMS_ISSUES_PER_TOKEN: wholeNumber(0, RATE_MAX).default(20),
    BUNKMS_READS_PER_TOKEN: wholeNumber(0, RATE_MAX).default(100),
    BUNKMS_CREATIONS_PER_TOKEN: wholeNumber(0, RATE_MAX).default(1_000),
    BUNKMS_TRUSTED_PROXIES: proxyList.optional(),
    BUNKMS_CONSOLE: onOrOff.default('on'),
    BUNKMS_DRAIN_MS: drainMs,
    BUNKMS_LOG_LEVEL: logLevel.default('info'),
  })
  .refine((values) => (values.BUNKMS_KEK_FILE === undefined) !== (values.BUNKMS_KEK === undefined), {
    path: ['BUNKMS_KEK_FILE'],
    message: 'give either BUNKMS_KEK_FILE or BUNKMS_KEK',
    when: always,
  })
  .refine(
    (values) =>
      values.BUNKMS_PORT === 0 ||
      values.BUNKMS_PORT !== values.BUNKMS_INTERNAL_PORT ||
      values.BUNKMS_HOST !== values.BUNKMS_INTERNAL_HOST,
    { path: ['BUNKMS_INTERNAL_PORT'], message: 'the API listener has the same host and port', when: always },
  )
  .refine(
    (values) =>
      values.BUNKMS_INTERNAL_CLIENT_NAMES === undefined ||
      values.BUNKMS_INTERNAL_CLIENT_CA_FILE !== undefined,
    {
      path: ['BUNKMS_INTERNAL_CLIENT_NAMES'],
      message: 'goes together with BUNKMS_INTERNAL_CLIENT_CA_FILE',
      when: always,
    },
  );
/** The variables of the service, which its command line also uses. */
export const VARIABLES: readonly string[] = Object.keys(variables.shape);

export const KNOWN_VARIABLES: KnownVariables = { prefix: 'BUNKMS_', names: VARIABLES };

const environmentSchema = allOrNone(allOrNone(variables, API_TLS), INTERNAL_TLS);

/** @throws ConfigError with all faults at once. */
export function readConfig(environment: Environment): BunkmsConfig {
  const parsed = parseEnvironment(environmentSchema, environment);
  return {
    host: parsed.BUNKMS_HOST,
    port: parsed.BUNKMS_PORT,
    internalHost: parsed.BUNKMS_INTERNAL_HOST,
    internalPort: parsed.BUNKMS_INTERNAL_PORT,
    tls: tlsFilesOf(parsed, API_TLS),
    internalTls: tlsFilesOf(parsed, INTERNAL_TLS),
    internalClientNames: parsed.BUNKMS_INTERNAL_CLIENT_NAMES,
    dataDir: parsed.BUNKMS_DATA_DIR,
    storage: storageOf(parsed),
    kek: kekSourceOf(parsed.BUNKMS_KEK_FILE, parsed.BUNKMS_KEK),
    outsideKeysFile: parsed.BUNKMS_OUTSIDE_KEYS_FILE,
    auditShip: parsed.BUNKMS_AUDIT_SHIP,
    backupTo: parsed.BUNKMS_BACKUP_TO,
    archive: parsed.BUNKMS_ARCHIVE,
    leaseTtlMs: parsed.BUNKMS_LEASE_TTL_MS,
    limits: {
      exportsPerToken: parsed.BUNKMS_EXPORTS_PER_TOKEN,
      exportsPerKey: EXPORTS_PER_KEY,
      cryptoPerToken: parsed.BUNKMS_CRYPTO_PER_SECOND,
      cryptoPerKey: parsed.BUNKMS_CRYPTO_PER_SECOND,
      destructionsPerToken: parsed.BUNKMS_DESTRUCTIONS_PER_TOKEN,
      renewalsPerMinute: RENEWALS_PER_MINUTE,
      issuesPerToken: parsed.BUNKMS_ISSUES_PER_TOKEN,
      readsPerToken: parsed.BUNKMS_READS_PER_TOKEN,
      creationsPerToken: parsed.BUNKMS_CREATIONS_PER_TOKEN,
    },
    shares: { isProxy: parsed.BUNKMS_TRUSTED_PROXIES },
    console: parsed.BUNKMS_CONSOLE === 'on',
    drainMs: parsed.BUNKMS_DRAIN_MS,
    logLevel: parsed.BUNKMS_LOG_LEVEL,
  };
}

function storageOf(parsed: z.infer<typeof variables>): StorageConfig {
  const address: 'sqlite' | PostgresAddress | undefined = parsed.BUNKMS_STORAGE;
  if (address === undefined || address === 'sqlite')
    return { kind: 'sqlite', deadlineMs: parsed.BUNKMS_SQLITE_DEADLINE_MS };
  const deadlineMs = address.timeoutMs ?? POSTGRES_DEADLINE_MS;
  return {
    kind: 'postgres',
    settings: {
      address,
      variable: 'BUNKMS_STORAGE',
      passwordFile: namedFile('BUNKMS_POSTGRES_PASSWORD_FILE', parsed),
      caFile: namedFile('BUNKMS_POSTGRES_CA_FILE', parsed),
      connectionsMax: address.connectionsMax ?? POSTGRES_CONNECTIONS_MAX,
      connectTimeoutMs: Math.round(deadlineMs * CONNECT_PART),
      statementTimeoutMs: Math.round(deadlineMs * STATEMENT_PART),
      lockTimeoutMs: Math.round(deadlineMs * LOCK_PART),
      idleInTransactionTimeoutMs: deadlineMs,
      deadlineMs,
    },
  };
}

function kekSourceOf(path: string | undefined, text: string | undefined): KekSource {
  return path === undefined ? { kind: 'inline', text: String(text) } : { kind: 'file', path };
}

function shipTargetOf(text: string): ShipTarget {
  return text === 'stdout' ? { kind: 'stdout' } : { kind: 'file', path: text.slice('file:'.length) };
}

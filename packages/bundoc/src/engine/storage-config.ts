import { wholeNumber } from '@bundoc/shared/runtime/config';
import type { NamedFile } from '@bundoc/shared/tls/files';
import { z } from 'zod';

/** Where documents are stored. */
export type StorageConfig = { readonly kind: 'files' } | ({ readonly kind: 'postgres' } & PostgresConfig);

export interface PostgresConfig {
  /** Without parameters. It may hold a password: never logged. */
  readonly url: string;
  /** What the log calls it: host, port and database. */
  readonly place: string;
  /** Whether connections are made by TLS, and checked: against these authorities, or those of the system. */
  readonly tls: { readonly ca: NamedFile | undefined } | undefined;
  /** Read again for each connection; the URL's password otherwise. */
  readonly passwordFile: NamedFile | undefined;
  /** Whether a pooler in between gives each transaction another connection. */
  readonly isPooled: boolean;
  readonly connectionsMax: number;
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly idleInTransactionTimeoutMs: number;
}

const POSTGRES_URL = /^postgres(ql)?:\/\//;
const SSL_MODES = ['disable', 'require', 'verify-full'] as const;

const postgresUrl = z.string().refine(isPostgresUrl, {
  message: `must be "files" or postgres://user@host/database, with sslmode (${SSL_MODES.join(', ')}) as its only parameter`,
});

const moveTarget = z.string().refine(isPostgresUrl, {
  message: `must be postgres://user@host/database, with sslmode (${SSL_MODES.join(', ')}) as its only parameter`,
});

/** The variables of the storage. */
export const storageVariables = {
  BUNDOC_STORAGE: z.literal('files').or(postgresUrl).default('files'),
  BUNDOC_MOVE_TO: moveTarget.optional(),
  BUNDOC_POSTGRES_PASSWORD_FILE: z.string().optional(),
  BUNDOC_POSTGRES_CA_FILE: z.string().optional(),
  BUNDOC_POSTGRES_POOLER: z.enum(['none', 'transaction']).default('none'),
  BUNDOC_POSTGRES_CONNECTIONS: wholeNumber(2, 500).default(20),
  BUNDOC_POSTGRES_CONNECT_TIMEOUT_MS: wholeNumber(100, 60_000).default(3_000),
  BUNDOC_POSTGRES_STATEMENT_TIMEOUT_MS: wholeNumber(100, 600_000).default(5_000),
  BUNDOC_POSTGRES_IDLE_TIMEOUT_MS: wholeNumber(100, 600_000).default(5_000),
};

type StorageValues = z.infer<z.ZodObject<typeof storageVariables>>;

export function storageOf(values: StorageValues): StorageConfig {
  if (values.BUNDOC_STORAGE === 'files') return { kind: 'files' };
  return { kind: 'postgres', ...postgresOf(values, values.BUNDOC_STORAGE) };
}

/** Where the service may move projects to: nowhere when it is not set. */
export function moveTargetOf(values: StorageValues): PostgresConfig | undefined {
  return values.BUNDOC_MOVE_TO === undefined ? undefined : postgresOf(values, values.BUNDOC_MOVE_TO);
}

/**
 * A CA file means TLS, whatever the URL says; its `sslmode` may ask for it without one. Certificates are
 * checked in any case.
 */
function postgresOf(values: StorageValues, named: string): PostgresConfig {
  const url = new URL(named);
  const sslMode = url.searchParams.get('sslmode');
  url.search = '';
  const ca = fileOf('BUNDOC_POSTGRES_CA_FILE', values.BUNDOC_POSTGRES_CA_FILE);
  const isTls = ca !== undefined || (sslMode !== null && sslMode !== 'disable');
  return {
    url: url.href,
    place: `${url.host}${url.pathname}`,
    tls: isTls ? { ca } : undefined,
    passwordFile: fileOf('BUNDOC_POSTGRES_PASSWORD_FILE', values.BUNDOC_POSTGRES_PASSWORD_FILE),
    isPooled: values.BUNDOC_POSTGRES_POOLER === 'transaction',
    connectionsMax: values.BUNDOC_POSTGRES_CONNECTIONS,
    connectTimeoutMs: values.BUNDOC_POSTGRES_CONNECT_TIMEOUT_MS,
    statementTimeoutMs: values.BUNDOC_POSTGRES_STATEMENT_TIMEOUT_MS,
    idleInTransactionTimeoutMs: values.BUNDOC_POSTGRES_IDLE_TIMEOUT_MS,
  };
}

function isPostgresUrl(text: string): boolean {
  const url = POSTGRES_URL.test(text) ? URL.parse(text) : null;
  if (url === null || url.hostname === '' || url.pathname.length < 2) return false;
  const parameters = [...url.searchParams];
  return parameters.every(([name, value]) => name === 'sslmode' && SSL_MODES.some((mode) => mode === value));
}

function fileOf(variable: string, path: string | undefined): NamedFile | undefined {
  return path === undefined ? undefined : { variable, path };
}

import { POSTGRES_URL_FORM, type PostgresAddress, parseAddress } from '@bundoc/shared/postgres/address';
import { type NamedFile, namedFile } from '@bundoc/shared/tls/files';
import { z } from 'zod';

/** The storage of documents. */
export type StorageConfig = { readonly kind: 'files' } | ({ readonly kind: 'postgres' } & PostgresConfig);

export interface PostgresConfig {
  readonly address: PostgresAddress;
  /** The variable that has the address. */
  readonly variable: 'BUNDOC_STORAGE' | 'BUNDOC_MOVE_TO';
  /** Read for each connection; without it, the URL's password is used. */
  readonly passwordFile: NamedFile | undefined;
  /** The authority of the server's certificate; without it, those of the system are used. */
  readonly caFile: NamedFile | undefined;
  /** Whether a pooler may give each transaction another connection. */
  readonly isPooled: boolean;
  readonly connectionsMax: number;
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly idleInTransactionTimeoutMs: number;
}

/** The defaults of the URL's parameters. */
const CONNECTIONS_MAX = 20;
const TIMEOUT_MS = 5_000;
/** How long to wait for a connection, as a part of the time that a statement may take. */
const CONNECT_PART = 0.6;

/** The variables of the storage. */
export const storageVariables = {
  BUNDOC_STORAGE: z
    .string()
    .transform((text) => (text === 'files' ? text : parseAddress(text)))
    .refine((address) => address !== undefined, `must be "files" or ${POSTGRES_URL_FORM}`)
    .prefault('files'),
  BUNDOC_MOVE_TO: z
    .string()
    .transform(parseAddress)
    .refine((address) => address !== undefined, `must be ${POSTGRES_URL_FORM}`)
    .optional(),
  BUNDOC_POSTGRES_PASSWORD_FILE: z.string().optional(),
  BUNDOC_POSTGRES_CA_FILE: z.string().optional(),
};

type StorageValues = z.infer<z.ZodObject<typeof storageVariables>>;

export function storageOf(values: StorageValues): StorageConfig {
  const address: 'files' | PostgresAddress | undefined = values.BUNDOC_STORAGE;
  if (address === undefined || address === 'files') return { kind: 'files' };
  return { kind: 'postgres', ...postgresOf(values, address, 'BUNDOC_STORAGE') };
}

/** The storage that the service may move projects to; undefined when not configured. */
export function moveTargetOf(values: StorageValues): PostgresConfig | undefined {
  return values.BUNDOC_MOVE_TO === undefined
    ? undefined
    : postgresOf(values, values.BUNDOC_MOVE_TO, 'BUNDOC_MOVE_TO');
}

function postgresOf(
  values: StorageValues,
  address: PostgresAddress,
  variable: PostgresConfig['variable'],
): PostgresConfig {
  const timeoutMs = address.timeoutMs ?? TIMEOUT_MS;
  return {
    address,
    variable,
    passwordFile: namedFile('BUNDOC_POSTGRES_PASSWORD_FILE', values),
    caFile: namedFile('BUNDOC_POSTGRES_CA_FILE', values),
    isPooled: address.isPooled,
    connectionsMax: address.connectionsMax ?? CONNECTIONS_MAX,
    connectTimeoutMs: timeoutMs * CONNECT_PART,
    statementTimeoutMs: timeoutMs,
    idleInTransactionTimeoutMs: timeoutMs,
  };
}

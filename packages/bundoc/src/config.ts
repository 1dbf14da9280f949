import { readFileSync } from 'node:fs';
import {
  ConfigError,
  type Environment,
  logLevel,
  parseEnvironment,
  portNumber,
  wholeNumber,
} from '@bundoc/shared/config';
import { LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import { z } from 'zod';

const MIB = 1_048_576;

const environmentSchema = z.object({
  BUNDOC_HOST: z.string().default('127.0.0.1'),
  BUNDOC_PORT: portNumber.default(8080),
  BUNDOC_DATA_DIR: z.string().default('./data'),
  BUNDOC_STORAGE: z.literal('files', 'must be "files"').default('files'),
  BUNDOC_KMS_URL: z
    .url({ protocol: /^https?$/, message: 'must be the http or https URL of BunKMS’s internal listener' })
    .default('http://127.0.0.1:8082'),
  BUNDOC_KMS_TOKEN_FILE: z.string('is required: the file of the service token for BunKMS'),
  BUNDOC_KMS_CA_FILE: z.string().optional(),
  BUNDOC_KEY_TTL_MS: wholeNumber(1, LEASE_TTL_MS).default(LEASE_TTL_MS),
  BUNDOC_MAX_DOCUMENT_BYTES: wholeNumber(1, 16 * MIB).default(MIB),
  BUNDOC_CACHE_BYTES: wholeNumber(0, 1_099_511_627_776).default(256 * MIB),
  BUNDOC_LOG_LEVEL: logLevel.default('info'),
});

export interface BundocConfig {
  readonly host: string;
  readonly port: number;
  readonly dataDir: string;
  readonly kms: { readonly url: string; readonly tokenFile: string; readonly ca: string | undefined };
  readonly keyTtlMs: number;
  readonly documentBytesMax: number;
  /** Sealed bytes that are kept in memory; 0 for none. */
  readonly cacheBytes: number;
  readonly logLevel: string;
}

/** @throws ConfigError with all faults at once. */
export function readConfig(environment: Environment): BundocConfig {
  const values = parseEnvironment(environmentSchema, environment);
  return {
    host: values.BUNDOC_HOST,
    port: values.BUNDOC_PORT,
    dataDir: values.BUNDOC_DATA_DIR,
    kms: {
      url: values.BUNDOC_KMS_URL,
      tokenFile: values.BUNDOC_KMS_TOKEN_FILE,
      ca: values.BUNDOC_KMS_CA_FILE === undefined ? undefined : readCa(values.BUNDOC_KMS_CA_FILE),
    },
    keyTtlMs: values.BUNDOC_KEY_TTL_MS,
    documentBytesMax: values.BUNDOC_MAX_DOCUMENT_BYTES,
    cacheBytes: values.BUNDOC_CACHE_BYTES,
    logLevel: values.BUNDOC_LOG_LEVEL,
  };
}

function readCa(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([
      `BUNDOC_KMS_CA_FILE: the file cannot be read (${(error as NodeJS.ErrnoException).code})`,
    ]);
  }
}

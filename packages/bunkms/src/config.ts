import { type Environment, logLevel, parseEnvironment, portNumber, wholeNumber } from '@bundoc/shared/config';
import { LEASE_TTL_MS } from '@bundoc/shared/contract/keys';
import { z } from 'zod';
import type { LimitRates } from './service/limits.ts';

export type KekSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'inline'; readonly text: string };

/** Where the audit chain is copied to. */
export type ShipTarget = { readonly kind: 'file'; readonly path: string } | { readonly kind: 'stdout' };

export interface BunkmsConfig {
  /** The API listener. */
  readonly host: string;
  readonly port: number;
  /** The internal listener: an address, or a name with exactly one. */
  readonly internalHost: string;
  readonly internalPort: number;
  readonly dataDir: string;
  readonly kek: KekSource;
  readonly auditShip: ShipTarget | undefined;
  /** How long whoever gets a key may keep it, milliseconds. */
  readonly leaseTtlMs: number;
  readonly limits: LimitRates;
  readonly logLevel: z.infer<typeof logLevel>;
}

/** Zod leaves refinements out while a member is at fault, but all faults are to be listed at once. */
const always = () => true;

const RATE_MAX = 1_000_000;

const environmentSchema = z
  .object({
    BUNKMS_HOST: z.string().default('127.0.0.1'),
    BUNKMS_PORT: portNumber.default(8081),
    BUNKMS_INTERNAL_HOST: z.string().default('127.0.0.1'),
    BUNKMS_INTERNAL_PORT: portNumber.default(8082),
    BUNKMS_DATA_DIR: z.string().default('./data/kms'),
    BUNKMS_STORAGE: z.literal('sqlite', 'must be "sqlite"').default('sqlite'),
    BUNKMS_KEK_FILE: z.string().optional(),
    BUNKMS_KEK: z.string().optional(),
    BUNKMS_AUDIT_SHIP: z
      .string()
      .regex(/^(stdout|file:.+)$/, 'must be "stdout" or "file:<path>"')
      .transform(shipTargetOf)
      .optional(),
    BUNKMS_LEASE_TTL_MS: wholeNumber(1_000, LEASE_TTL_MS).default(LEASE_TTL_MS),
    BUNKMS_EXPORTS_PER_TOKEN: wholeNumber(0, RATE_MAX).default(2_000),
    BUNKMS_EXPORTS_PER_KEY: wholeNumber(0, RATE_MAX).default(200),
    BUNKMS_RENEWALS_PER_MINUTE: wholeNumber(0, RATE_MAX).default(30),
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
  );

/** @throws ConfigError with all faults at once. */
export function readConfig(environment: Environment): BunkmsConfig {
  const parsed = parseEnvironment(environmentSchema, environment);
  return {
    host: parsed.BUNKMS_HOST,
    port: parsed.BUNKMS_PORT,
    internalHost: parsed.BUNKMS_INTERNAL_HOST,
    internalPort: parsed.BUNKMS_INTERNAL_PORT,
    dataDir: parsed.BUNKMS_DATA_DIR,
    kek: kekSourceOf(parsed.BUNKMS_KEK_FILE, parsed.BUNKMS_KEK),
    auditShip: parsed.BUNKMS_AUDIT_SHIP,
    leaseTtlMs: parsed.BUNKMS_LEASE_TTL_MS,
    limits: {
      exportsPerToken: parsed.BUNKMS_EXPORTS_PER_TOKEN,
      exportsPerKey: parsed.BUNKMS_EXPORTS_PER_KEY,
      renewalsPerMinute: parsed.BUNKMS_RENEWALS_PER_MINUTE,
    },
    logLevel: parsed.BUNKMS_LOG_LEVEL,
  };
}

function kekSourceOf(path: string | undefined, text: string | undefined): KekSource {
  return path === undefined ? { kind: 'inline', text: String(text) } : { kind: 'file', path };
}

function shipTargetOf(text: string): ShipTarget {
  return text === 'stdout' ? { kind: 'stdout' } : { kind: 'file', path: text.slice('file:'.length) };
}

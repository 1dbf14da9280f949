import { readFileSync } from 'node:fs';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { z } from 'zod';
import { WORDS } from '../logs/fault-words.ts';
import type { Logger } from '../logs/logger.ts';
import { printable } from '../logs/printable.ts';
import { suggestFor } from '../logs/unknown-names.ts';
import { canonicalAddress } from '../runtime/addresses.ts';

/** The environment is invalid. The message lists every fault in a separate line, and quotes no value. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  /** One line for each fault. */
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(['the configuration is not valid:', ...faults.map((fault) => `  ${fault}`)].join('\n'));
    this.faults = faults;
  }
}

/** The environment: `process.env` in `main.ts`, a literal in tests. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Parses the environment by a schema with variables as members. Empty variables count as absent, because
 * compose files and shells pass unset variables as empty.
 *
 * @throws ConfigError with all faults at once.
 */
export function parseEnvironment<S extends z.ZodType>(schema: S, environment: Environment): z.infer<S> {
  const present = Object.fromEntries(Object.entries(environment).filter(([, value]) => value));
  const result = schema.safeParse(present, WORDS);
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`));
}

/** Maximum of unknown variables that a log line names. */
const UNKNOWN_TOLD_MAX = 20;

/** The variables of a service and of its command line, which may be in the same environment. */
export interface KnownVariables {
  /** With its underscore. */
  readonly prefix: string;
  readonly names: readonly string[];
}

/**
 * Finds unknown variables with the prefix of the service: the setting of a misspelt variable silently keeps
 * its default. A service and its commands warn before they read the configuration: a required variable may be
 * missing because its name is misspelt.
 *
 * @param warn called with a sentence and the names, unless there are none.
 */
export function findUnknown(
  { prefix, names: known }: KnownVariables,
  environment: Environment,
  warn: (sentence: string, variables: readonly string[]) => void,
): void {
  const unknown = Object.keys(environment)
    .filter((name) => name.startsWith(prefix) && !known.includes(name) && !OF_KUBERNETES.test(name))
    .sort();
  if (unknown.length === 0) return;
  const told = unknown.slice(0, UNKNOWN_TOLD_MAX).map((name) => suggestFor(name, known, prefix));
  warn(`unknown variables are ignored: ${told.join(', ')}`, unknown);
}

/** Logs what {@link findUnknown} finds. */
export function warnOfUnknown(known: KnownVariables, environment: Environment, logger: Logger): void {
  findUnknown(known, environment, (sentence, variables) => logger.warn({ variables }, sentence));
}

/** Makes a refinement run even if a member is invalid, so that all faults are listed at once. */
export const always = () => true;

/** Refuses a partly set group of variables, which is certainly a mistake. */
export function allOrNone<S extends z.ZodType<Record<string, unknown>>>(
  schema: S,
  names: readonly string[],
): S {
  return names.reduce(
    (refined, name) =>
      refined.refine(
        (values) => values[name] !== undefined || names.every((other) => values[other] === undefined),
        {
          path: [name],
          message: `goes together with ${names.filter((other) => other !== name).join(' and ')}`,
          when: always,
        },
      ),
    schema,
  );
}

/** One or more names separated by commas. */
export const nameList = z
  .string()
  .transform((text) => text.split(',').map((name) => name.trim()))
  .pipe(z.array(z.string().min(1, 'must be names separated by commas')));

/**
 * Origins of pages (RFC 6454) separated by commas, each exactly as a browser sends it: no path, no wildcard,
 * no `null`.
 */
export const originList = nameList.pipe(
  z
    .array(
      z.string().refine(isWebOrigin, {
        error: ({ input }) =>
          `must be origins separated by commas, such as https://app.example:8443${String(input).endsWith('/') ? ': drop the slash at the end' : ''}`,
      }),
    )
    .max(100, 'must be 100 origins at most'),
);

function isWebOrigin(text: string): boolean {
  return /^https?:[^*]+$/.test(text) && URL.canParse(text) && new URL(text).origin === text;
}

/**
 * Addresses and subnets of proxies, separated by commas: `10.0.0.7,fd00:1::/64`. Parses to a function that
 * says whether an address is among them.
 */
export const proxyList = nameList
  .pipe(
    z
      .array(z.string().refine(isAddressOrSubnet, 'must be IP addresses or subnets separated by commas'))
      .max(100, 'must be 100 addresses at most'),
  )
  .transform(memberOf);

function isAddressOrSubnet(text: string): boolean {
  const [address = '', prefix, ...more] = text.split('/');
  const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1;
  return (
    more.length === 0 &&
    (prefix === undefined ? bits > 0 : /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits)
  );
}

/** @returns whether an address is among these addresses and subnets. */
export function memberOf(places: readonly string[]): (address: string) => boolean {
  const list = new BlockList();
  for (const place of places) {
    const [address = '', prefix] = place.split('/');
    const family = isIPv6(address) ? 'ipv6' : 'ipv4';
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return (address) => {
    const canonical = canonicalAddress(address);
    return canonical !== undefined && list.check(canonical, isIPv6(canonical) ? 'ipv6' : 'ipv4');
  };
}

/** A variable with a whole number. */
export function wholeNumber(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d{1,15}$/, message)
    .transform(Number)
    .pipe(z.number().min(min, message).max(max, message));
}

/** What Kubernetes sets in each container for a Service with the name of the program. */
const OF_KUBERNETES = /^[A-Z]+_(?:SERVICE_(?:HOST|PORT)(?:_\w+)?|PORT_\d+_\w+)$/;
const KUBERNETES_PORT =
  'is what Kubernetes sets for a Service of this name: set the port, or enableServiceLinks: false in the pod';

/** A TCP port; with 0 the system chooses, for tests. */
export const portNumber = z
  .string()
  .refine((text) => !text.startsWith('tcp://'), { message: KUBERNETES_PORT, abort: true })
  .pipe(wholeNumber(0, 65_535));

/** A variable with `on` or `off`. */
export const onOrOff = z.enum(['on', 'off'], 'must be "on" or "off"');

export const logLevel = z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']);

/**
 * Reads a small secret file, without the white space at its end. An empty file is an error: an interrupted
 * setup leaves one behind.
 *
 * @param toMake how to make the file at a path.
 * @throws ConfigError that names the variable, the path and the reason, never the content.
 */
export function readSecretFile(variable: string, path: string, toMake?: (path: string) => string): string {
  let secret: string;
  try {
    secret = readFileSync(path, 'utf8').trimEnd();
  } catch (error) {
    throw new ConfigError([`${variable}: ${unreadable(path, error, toMake)}`]);
  }
  if (secret === '') {
    const place = resolve(path);
    const remedy = toMake === undefined ? '' : `: ${toMake(place)}`;
    throw new ConfigError([`${variable}: the file ${place} is empty${remedy}`]);
  }
  return secret;
}

/** A KEK (32 bytes in base64 or hex) or a token, which was given where a path belongs. */
const SECRET = /^(?:[\w+/-]{43}=?|[\dA-Fa-f]{64}|eyJ.*)$/s;

/**
 * Why a file that a variable names cannot be read.
 *
 * @param toMake how to make a missing file.
 */
export function unreadable(path: string, error: unknown, toMake?: (path: string) => string): string {
  if (SECRET.test(path)) return 'must be the path of a file, and looks like the secret itself';
  const { code } = error as NodeJS.ErrnoException;
  const place = printable(resolve(path));
  if (code === 'EISDIR') return `${place} is a folder: name a file`;
  const remedy = code === 'ENOENT' && toMake !== undefined ? `; ${toMake(place)}` : '';
  return `the file ${place} cannot be read (${code})${remedy}`;
}

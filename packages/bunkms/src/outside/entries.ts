import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { globMatches } from '@bundoc/shared/contract/grants';
import { keyNameSchema, outsideNameSchema } from '@bundoc/shared/contract/keys';
import { keyGlobSchema } from '@bundoc/shared/contract/tokens';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import { WORDS } from '@bundoc/shared/logs/fault-words';
import { ConfigError, unreadable } from '@bundoc/shared/process/config';
import { z } from 'zod';

const FILE_BYTES_MAX = 1_048_576;
const ENTRIES_MAX = 1_000;
/** Globs of one entry. */
const GLOBS_MAX = 100;
const TEXT_MAX = 1_024;

const text = z.string().min(1).max(TEXT_MAX);
const LOOPBACK = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
const url = text.superRefine((value, context) => {
  const fault = faultOfUrl(value);
  if (fault !== undefined) context.addIssue(fault);
});
/** Tokens of BunKMS and of Vault, a PIN, a secret access key of AWS. */
const SECRETS = [
  /^eyJ/,
  /^(?:hv[sbr]|[sbr])\.[\w-]{20,}$/,
  /^\d+$/,
  /^(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[\dA-Za-z+/]{40}$/,
];
/** The path of a file with a secret. Errors quote it, so it must not be the secret. */
const secretFile = text.refine(
  (path) => !SECRETS.some((secret) => secret.test(path)),
  'must be the path of a file, and looks like the secret itself',
);
/** Names and paths of OpenBao: no segment of them may lead elsewhere. */
const path = text.regex(
  /^[\w-][\w.-]*(?:\/[\w-][\w.-]*)*$/,
  'must be a path such as "transit" or "team/transit"',
);

/** Globs of keys that may be attached to the entry, and of those that are attached from their birth. */
const uses = {
  keys: z.array(keyGlobSchema).max(GLOBS_MAX).readonly().optional(),
  create: z.array(keyGlobSchema).max(GLOBS_MAX).readonly().optional(),
};

const bao = z.strictObject({
  kind: z.literal('transit'),
  url,
  namespace: path.optional(),
  mount: path.default('transit'),
  key: path,
  token_file: secretFile,
  ca_file: text.optional(),
  ...uses,
});
const bunkms = z.strictObject({
  kind: z.literal('bunkms'),
  url,
  key: keyNameSchema,
  token_file: secretFile,
  ca_file: text.optional(),
  ...uses,
});
const awsKms = z
  .strictObject({
    kind: z.literal('aws-kms'),
    key_arn: text.regex(
      /^arn:aws(?:-[a-z]+)*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/,
      'must be the ARN of a key, which an alias is not: "arn:aws:kms:<region>:<account>:key/<id>"',
    ),
    region: text.regex(/^[a-z0-9-]+$/, 'must be a region such as "eu-central-1"').optional(),
    endpoint: url.optional(),
    ca_file: text.optional(),
    credentials_file: secretFile.optional(),
    profile: text.optional(),
    ...uses,
  })
  .refine(({ key_arn, region }) => region === undefined || region === key_arn.split(':')[3], {
    path: ['region'],
    error: 'must be that of key_arn, or be left out',
  });
const pkcs11 = z.strictObject({
  kind: z.literal('pkcs11'),
  module: text,
  token: text,
  serial: text.optional(),
  key: text,
  pin_file: secretFile,
  oaep_hash: z.enum(['sha256', 'sha1']).default('sha256'),
  ...uses,
});

export const entrySchema = z.discriminatedUnion('kind', [bao, bunkms, awsKms, pkcs11]);
/** How one outside key is reached. Paths are absolute. */
export type OutsideEntry = z.infer<typeof entrySchema>;

const fileSchema = z.strictObject({
  keys: z
    .record(outsideNameSchema, entrySchema)
    .refine((keys) => Object.keys(keys).length <= ENTRIES_MAX, `may have at most ${ENTRIES_MAX} entries`),
});

/** @returns undefined for a URL that keys may be sent to. */
function faultOfUrl(value: string): string | undefined {
  const parsed = URL.parse(value);
  if (parsed === null || !/^https?:$/.test(parsed.protocol))
    return 'must be a URL such as "https://bao.example:8200"';
  const { protocol, hostname, username, password, search, hash } = parsed;
  if (username + password + search + hash !== '') return 'must have no credential, query or fragment';
  if (protocol === 'https:' || LOOPBACK.test(hostname)) return undefined;
  return 'must be https, or name this machine: keys are sent there';
}

/** What an entry names, for people: `https://bao:8200 transit/bunkms`. */
export function placeOfEntry(entry: OutsideEntry): string {
  if (entry.kind === 'aws-kms') return entry.key_arn;
  if (entry.kind === 'pkcs11') return `token ${entry.token} ${entry.key}`;
  const { origin } = new URL(entry.url);
  if (entry.kind === 'bunkms') return `${origin} ${entry.key}`;
  return `${origin} ${[entry.namespace, entry.mount, entry.key].filter(Boolean).join('/')}`;
}

/** Entries by name. */
export type OutsideEntries = ReadonlyMap<string, OutsideEntry>;

/** Whether the entry of that name lets the key of a customer be attached to it. */
export function allowsKey(entries: OutsideEntries, name: string, keyName: string): boolean {
  const { keys = [], create = [] } = entries.get(name) ?? {};
  return [...keys, ...create].some((glob) => globMatches(glob, keyName));
}

/** The first entry that new keys of that name are attached to from their birth. */
export function entryOfBirth(entries: OutsideEntries, keyName: string): string | undefined {
  for (const [name, { create = [] }] of entries)
    if (create.some((glob) => globMatches(glob, keyName))) return name;
  return undefined;
}

/**
 * Reads `BUNKMS_OUTSIDE_KEYS_FILE`. Paths in it count from its folder.
 *
 * @throws ConfigError with every fault. It quotes no values.
 */
export function readEntries(file: string): OutsideEntries {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw faulty(unreadable(file, error, () => 'write it as docs/how-to/seal-the-ring.md shows'));
  }
  if (bytes.length > FILE_BYTES_MAX) throw faulty(`the file is longer than ${FILE_BYTES_MAX} bytes`);
  const result = fileSchema.safeParse(parse(bytes), WORDS);
  if (!result.success)
    throw faulty(
      ...result.error.issues.map(({ path, message }) => [path.join('.'), message].filter(Boolean).join(': ')),
    );
  const folder = dirname(file);
  return new Map(Object.entries(result.data.keys).map(([name, entry]) => [name, absolute(entry, folder)]));
}

function parse(bytes: Buffer): unknown {
  if (bytes.toString('latin1').trim() === '') throw faulty('the file is empty: it needs {"keys": {…}}');
  try {
    return parseJsonObject(bytes).value;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    throw faulty(`the file is not valid JSON: ${error.detail}`);
  }
}

/** Members that name a file end in `_file`, but for the module of a token. */
function absolute(entry: OutsideEntry, folder: string): OutsideEntry {
  const changed = Object.entries(entry).map(([name, value]) =>
    isPath(name) && typeof value === 'string' ? [name, resolve(folder, value)] : [name, value],
  );
  return Object.fromEntries(changed) as OutsideEntry;
}

function isPath(member: string): boolean {
  return member.endsWith('_file') || member === 'module';
}

function faulty(...faults: string[]): ConfigError {
  return new ConfigError(faults.map((fault) => `BUNKMS_OUTSIDE_KEYS_FILE: ${fault}`));
}

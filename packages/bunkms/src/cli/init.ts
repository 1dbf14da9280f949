import { createPublicKey, type KeyObject, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { type AddCommands, command, each, parserFor } from '@bundoc/shared/cli/command';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { type Claims, claimsSchema, type IssueToken } from '@bundoc/shared/contract/tokens';
import { KEY_BYTES } from '@bundoc/shared/crypto/aead';
import { KEY_TEXT_BYTES, writeKeyText } from '@bundoc/shared/crypto/key-text';
import { createPrivateFile, replacePrivateFile } from '@bundoc/shared/files/private-file';
import type { Environment } from '@bundoc/shared/process/config';
import { jwtVerify } from 'jose';
import { readConfig } from '../config.ts';
import { OF_NEW_STORE, placeOf, type StoreLocation } from '../open-store.ts';
import { CLI_CALLER } from '../records/caller.ts';
import type { CertificateRequest } from './certificates.ts';
import { CliFailure, UsageError } from './errors.ts';
import { type CliKms, hasStore, openCliStore, unsealStore } from './open-kms.ts';

export interface InitOptions extends JsonOption {
  readonly createKek?: true;
  /** The file for Bundoc's service token. */
  readonly serviceToken?: string;
  /** The folder of the authority that issues certificates. */
  readonly authority?: string;
  readonly certificate?: readonly CertificateRequest[];
}

/** `folder=name,name`: the certificate for the folder. */
const certificate = parserFor('folder=name,name', (text): CertificateRequest | undefined => {
  const [directory, list = '', ...rest] = text.split('=');
  const names = list.split(',');
  const isValid = rest.length === 0 && names.every((name) => /^[a-z0-9._:-]{1,253}$/.test(name));
  return directory && isValid ? { directory, names } : undefined;
});

/** `bunkms init`: creates what is missing of an installation. */
export const addInitCommand: AddCommands = (program, environment) => {
  command(program, 'init', 'creates the missing parts of an installation')
    .option('--create-kek', 'create the KEK file if it does not exist')
    .option('--service-token <file>', 'keep a valid token for Bundoc in this file')
    .option('--authority <folder>', 'keep a private authority for certificates in this folder')
    .option(
      '--certificate <folder=names>',
      'keep a certificate for these names in this folder',
      each(certificate),
      [],
    )
    .action((options) => init(environment, options));
};

/**
 * Bundoc's rights: create, read, fetch and rotate the keys of projects, and destroy the key of a deleted
 * project.
 */
const SERVICE_TOKEN: IssueToken = {
  sub: 'bundoc',
  typ: 'service',
  scope: ['kms:create_key', 'kms:export_key', 'kms:read_key', 'kms:rotate_key', 'kms:shred_key'],
  keys: ['*-dek'],
  projects: [],
};
/** A token that expires sooner is replaced: Bundoc must have time to start and renew it. */
const REMAINING_S_MIN = 3_600;

/**
 * Creates the missing parts of an installation: KEK file, store, service token, certificates. It may run at
 * any time.
 */
export async function init(environment: Environment, options: InitOptions): Promise<void> {
  const config = readConfig(environment);
  const { kek } = config;
  const { authority, certificate: certificates = [] } = options;
  if ((authority === undefined) !== (certificates.length === 0))
    throw new UsageError('--authority and --certificate go together');
  let isComplete = true;
  if (options.createKek === true) {
    if (kek.kind !== 'file') throw new UsageError('--create-kek needs BUNKMS_KEK_FILE');
    isComplete = !(await ensureKekFile(kek.path, config));
  }
  const isNew = !(await hasStore(config));
  await using store = await openCliStore(config);
  const kms = await unsealStore(environment, store);
  if (isNew) console.error(`bunkms: created a new store in ${placeOf(config)}: ${OF_NEW_STORE}`);
  if (options.serviceToken !== undefined && (await ensureServiceToken(kms, options.serviceToken)))
    isComplete = false;
  if (authority !== undefined) {
    // Loaded only when a certificate is needed.
    const { ensureCertificates } = await import('./certificates.ts');
    await ensureCertificates(authority, certificates);
  } else if (isComplete && !isNew) console.error(`bunkms: nothing is missing in ${placeOf(config)}`);
  print(options, { kek_id: kms.vault.currentKekId, kid: kms.state.publicKey.kid }, () => []);
}

/** @returns whether this call has made it. */
async function ensureKekFile(path: string, location: StoreLocation): Promise<boolean> {
  if (existsSync(path)) return false;
  if (await hasStore(location))
    throw new CliFailure(
      'the KEK file is missing, but the store was created with it: a new KEK would open nothing',
    );
  const kek = randomBytes(KEY_BYTES);
  const text = Buffer.alloc(KEY_TEXT_BYTES + 1, '\n');
  writeKeyText(kek, text);
  kek.fill(0);
  const made = await createPrivateFile(path, text).finally(() => text.fill(0));
  if (made)
    console.error(`bunkms: created a KEK in ${path}; without it the keys are lost, so keep a copy elsewhere`);
  return made;
}

/** @returns whether this call has made it. */
async function ensureServiceToken(kms: CliKms, path: string): Promise<boolean> {
  if (await isGoodServiceToken(kms, path)) return false;
  refuseOtherContent(path);
  const { token } = await kms.tokens.issue(SERVICE_TOKEN, CLI_CALLER);
  await replacePrivateFile(path, `${token}\n`);
  console.error(`bunkms: created a service token in ${path}`);
  return true;
}

/** Only a token is replaced. @throws UsageError for any other file: it may be that of the KEK. */
function refuseOtherContent(path: string): void {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (found.isDirectory()) throw new UsageError(`--service-token: ${path} is a folder: name a file in it`);
  const text = readFileSync(path, 'utf8').trim();
  if (text !== '' && !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text))
    throw new UsageError(
      `--service-token: ${path} has something other than a token, and stays as it is: name another file, or remove it`,
    );
}

async function isGoodServiceToken({ store, state }: CliKms, path: string): Promise<boolean> {
  const claims = await claimsOfFile(path, createPublicKey(state.signingKey));
  if (claims === undefined || claims.exp < Date.now() / 1000 + REMAINING_S_MIN) return false;
  const allows =
    claims.sub === SERVICE_TOKEN.sub &&
    claims.typ === SERVICE_TOKEN.typ &&
    claims.aud === 'bunkms' &&
    SERVICE_TOKEN.scope.every((scope) => claims.scope.includes(scope)) &&
    SERVICE_TOKEN.keys.every((glob) => claims.keys.includes(glob));
  return allows && (await store.findActiveTokenFamily(claims.jti)) !== undefined;
}

/** @returns undefined when the file does not exist, or its content was not signed by this installation. */
async function claimsOfFile(path: string, key: KeyObject): Promise<Claims | undefined> {
  try {
    const { payload } = await jwtVerify(readFileSync(path, 'utf8').trim(), key, { algorithms: ['EdDSA'] });
    return claimsSchema.parse(payload);
  } catch {
    return undefined;
  }
}

import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { askService, below, checkService, type Trust } from '@bundoc/shared/cli/ask-service';
import { Checkup, checkClock, checkDisk, checkVersions } from '@bundoc/shared/cli/checkup';
import { counted } from '@bundoc/shared/cli/counted';
import { inspectToken } from '@bundoc/shared/cli/explain-token';
import type { Jwks, TokenInfo } from '@bundoc/shared/contract/tokens';
import { ConfigError, type Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { VERSION } from '@bundoc/shared/runtime/version';
import { readTlsMaterial, type TlsFiles } from '@bundoc/shared/tls/files';
import { type BunkmsConfig, readConfig } from '../config.ts';
import { kekProviderOf } from '../vault/kek-provider.ts';
import { Vault } from '../vault/vault.ts';
import { CliFailure } from './errors.ts';
import { type CliKms, withKms } from './open-kms.ts';
import { allTokens } from './token.ts';

export interface DoctorOptions {
  readonly url?: string;
  readonly caFile?: string;
  readonly tokenFile?: string;
  readonly json?: true;
}

/**
 * Checks the requirements of BunKMS and the running server. Prints one line for each check, with the remedy.
 * Changes nothing.
 *
 * @throws CliFailure after the lines when something fails.
 */
export async function doctorCommand(environment: Environment, options: DoctorOptions): Promise<void> {
  const checkup = new Checkup();
  const config = configOf(checkup, environment);
  if (config !== undefined) {
    const hasKek = await checkKek(checkup, config);
    if (config.storage.kind === 'sqlite')
      await checkDisk(checkup, resolve(config.dataDir), 'BUNKMS_DATA_DIR');
    if (hasKek) await checkInstallation(checkup, environment, options);
    for (const [name, files] of [
      ['tls', config.tls],
      ['internal tls', config.internalTls],
    ] as const)
      checkFiles(checkup, name, files);
    await checkServer(checkup, config, options);
  }
  if (options.json) console.log(JSON.stringify({ ok: !checkup.hasFailed, findings: checkup.findings }));
  else for (const line of checkup.lines()) console.log(line);
  if (checkup.hasFailed) throw new CliFailure('some checks failed: see the lines that begin with "fail"');
}

/** Reads the configuration; each fault becomes a finding. */
function configOf(checkup: Checkup, environment: Environment): BunkmsConfig | undefined {
  try {
    const config = readConfig(environment);
    checkup.ok('config', 'the variables are valid');
    return config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const [, ...faults] = error.message.split('\n');
    for (const fault of faults)
      checkup.fail('config', fault.trim(), 'correct the variable (docs/configuration.md)');
    return undefined;
  }
}

/** Checks that the KEK ring can be read. Opening the installation shows whether it fits. */
async function checkKek(checkup: Checkup, { kek }: BunkmsConfig): Promise<boolean> {
  const remedy =
    kek.kind === 'file'
      ? `put the KEK into ${kek.path} (BUNKMS_KEK_FILE), readable by the user of the service`
      : 'give 32 bytes in base64 or hex in BUNKMS_KEK';
  const vault = await checkup.try(
    'kek',
    remedy,
    async () => new Vault(await kekProviderOf(kek, () => undefined).load()),
  );
  if (vault === undefined) return false;
  if (kek.kind === 'file' && process.platform !== 'win32') {
    const { mode } = await stat(kek.path);
    if ((mode & 0o077) !== 0)
      checkup.warn(
        'kek',
        `others may read ${kek.path} (mode ${(mode & 0o777).toString(8)})`,
        `run "chmod 600 ${kek.path}"`,
      );
  }
  return true;
}

async function checkInstallation(
  checkup: Checkup,
  environment: Environment,
  options: DoctorOptions,
): Promise<void> {
  const remedy =
    'make sure that BUNKMS_DATA_DIR or BUNKMS_STORAGE and the KEK belong to the same installation';
  await checkup.try('kek', remedy, () =>
    withKms(environment, async (kms) => {
      const { keys } = await kms.store.counts();
      checkup.ok(
        'kek',
        `the KEK ${kms.vault.currentKekId} opens the installation, which has ${counted(keys, 'key')}`,
      );
      if (kms.trust.isSealed)
        checkup.fail(
          'database',
          kms.trust.faults.join('; '),
          'see "BunKMS is sealed" in docs/operations/alerts.md',
        );
      else
        checkup.ok(
          'database',
          'the schema is the one of this release, and the end of the audit chain is whole',
        );
      const tokens = await allTokens(kms.tokens);
      checkTokens(checkup, tokens.tokens, tokens.damaged);
      if (options.tokenFile !== undefined) await checkTokenFile(checkup, kms, options.tokenFile);
    }),
  );
}

const SOON_MS = 7 * 86_400_000;

/** Checks that a token for Bundoc exists, and whether tokens without renewal expire soon. */
function checkTokens(checkup: Checkup, tokens: readonly TokenInfo[], damaged: readonly string[]): void {
  const nowMs = Date.now();
  if (damaged.length > 0)
    checkup.fail(
      'token',
      `the audit chain contradicts ${counted(damaged.length, 'token')} in the store`,
      'run "bunkms audit verify"',
    );
  const valid = tokens.filter(
    (token) =>
      token.typ === 'service' && token.revoked_at === undefined && Date.parse(token.expires_at) > nowMs,
  );
  if (!valid.some(({ scope }) => scope.includes('kms:export_key'))) {
    checkup.warn(
      'token',
      'no valid token may export keys, so Bundoc cannot work',
      'create one with "bunkms init --service-token <file>"',
    );
    return;
  }
  const ending = valid.filter((token) => {
    const isRenewed = valid.some(
      (other) => other.family === token.family && other.expires_at > token.expires_at,
    );
    return !isRenewed && Date.parse(token.expires_at) - nowMs < SOON_MS;
  });
  if (ending.length > 0)
    checkup.warn(
      'token',
      `expire within a week: ${ending.map(({ jti, sub }) => `${sub} (${jti})`).join(', ')}`,
      'a running Bundoc renews its own token; issue others with "bunkms token issue"',
    );
  else checkup.ok('token', `${counted(valid.length, 'service token')} valid, none expires within a week`);
}

/** Checks a token file: whether the token is from this installation and valid, and for how long. */
async function checkTokenFile(checkup: Checkup, { store, state }: CliKms, path: string): Promise<void> {
  const remedy = 'create one with "bunkms init --service-token <file>"';
  const { kid, x } = state.publicKey;
  const keys: Jwks = { keys: [{ kty: 'OKP', crv: 'Ed25519', use: 'sig', alg: 'EdDSA', kid, x }] };
  await checkup.try('token file', remedy, async () => {
    const { claims, signature } = inspectToken(await readFile(path, 'utf8'), keys);
    if (signature !== 'good') checkup.fail('token file', 'the token is of another installation', remedy);
    else if (claims.exp * 1_000 <= Date.now())
      checkup.fail(
        'token file',
        `the token expired at ${new Date(claims.exp * 1_000).toISOString()}`,
        remedy,
      );
    else if (claims.aud === 'bunkms' && (await store.findActiveTokenFamily(claims.jti)) === undefined)
      checkup.fail('token file', 'the token is revoked or unknown', remedy);
    else
      checkup.ok(
        'token file',
        `the token of ${claims.sub} is valid until ${new Date(claims.exp * 1_000).toISOString()}`,
      );
  });
}

const CERTIFICATE_WARN_MS = 14 * 86_400_000;

/** Checks the certificate files of a listener. */
function checkFiles(checkup: Checkup, name: string, files: TlsFiles | undefined): void {
  if (files === undefined) return;
  try {
    const { notAfterMs } = readTlsMaterial(files);
    if (notAfterMs === undefined) return;
    const day = new Date(notAfterMs).toISOString().slice(0, 10);
    const remedy =
      'renew it, for example by "bunkms init --certificate"; the server reads new files automatically';
    if (notAfterMs <= Date.now()) checkup.fail(name, `the certificate expired on ${day}`, remedy);
    else if (notAfterMs - Date.now() < CERTIFICATE_WARN_MS)
      checkup.warn(name, `the certificate expires on ${day}`, remedy);
    else checkup.ok(name, `the certificate is valid until ${day}`);
  } catch (error) {
    checkup.fail(name, lineOf(error), 'correct the files of the certificate');
  }
}

/** Checks the running server at its API listener. */
async function checkServer(checkup: Checkup, config: BunkmsConfig, options: DoctorOptions): Promise<void> {
  const { caFile } = options;
  const trust = await checkup.try(
    'tls',
    'name a readable file in --ca-file',
    async (): Promise<Trust> => (caFile === undefined ? {} : { ca: await readFile(caFile, 'utf8') }),
  );
  if (trust === undefined) return;
  const url = options.url ?? urlOf(config);
  const health = await checkService(checkup, {
    name: 'BunKMS',
    url,
    where: 'by --url, or BUNKMS_HOST and BUNKMS_PORT',
    trust,
  });
  if (health === undefined) return;
  const { date: service, beforeMs, afterMs, body } = health;
  checkClock(checkup, 'the server', { service, beforeMs, afterMs });
  const theirs = typeof body['version'] === 'string' ? body['version'] : undefined;
  checkVersions(checkup, { name: 'this command', version: VERSION }, { name: 'the server', version: theirs });
  const answer = await checkup.try('ready', 'try again; see the log of the server', () =>
    askService(below(url, '/ready'), trust),
  );
  const status = answer?.body['status'];
  if (status === 'ready') checkup.ok('ready', 'the server is unsealed, and its store is writable');
  else if (status === 'sealed' && answer?.body['faults'] !== undefined)
    checkup.fail(
      'ready',
      `the server does not trust its database: ${String(answer.body['faults'])}`,
      'see "BunKMS is sealed" in docs/operations/alerts.md; do not restart it',
    );
  else if (status === 'sealed')
    checkup.fail(
      'ready',
      'the server is sealed: its KEK does not fit',
      'give it the KEK of the installation, and restart it',
    );
  else if (answer !== undefined)
    checkup.fail('ready', 'the server is not ready', 'check its disk or database; its log says what fails');
}

/** The URL of the configured API listener from this machine. */
function urlOf({ host, port, tls }: BunkmsConfig): string {
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const name = reached.includes(':') ? `[${reached}]` : reached;
  return `${tls === undefined ? 'http' : 'https'}://${name}:${port}`;
}

import { resolve } from 'node:path';
import { ownUrl, trustOf } from '@bundoc/shared/cli/ask-service';
import { checkDatabase } from '@bundoc/shared/cli/check-database';
import { checkService, checkToken, judgeBunkms } from '@bundoc/shared/cli/check-service';
import { Checkup, checkCertificate, checkDisk, warnOfOpenFile } from '@bundoc/shared/cli/checkup';
import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { readText } from '@bundoc/shared/cli/read-text';
import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import type { Environment } from '@bundoc/shared/process/config';
import { readTlsMaterial } from '@bundoc/shared/tls/files';
import { type BunkmsConfig, KNOWN_VARIABLES, readConfig } from '../config.ts';
import { newestSplit } from '../kek/split-record.ts';
import { neededKeks } from '../records/kek-state.ts';
import { BackupFolder, installationOf } from '../recovery/backup-folder.ts';
import { checkArchive, checkAuditCopy, checkBackups } from './doctor-copies.ts';
import { checkFormer, checkOutside, checkSeal } from './doctor-seal.ts';
import { KEK_MUST_FIT } from './errors.ts';
import { type CliKms, loadRing, withKms, withStore } from './open-kms.ts';
import { allTokens } from './token.ts';

interface DoctorOptions {
  readonly url?: string;
  readonly caFile?: string;
  readonly tokenFile?: string;
}

/**
 * `bunkms doctor`: checks the requirements of BunKMS and the running server. Changes nothing, except that an
 * archive gets one object.
 */
export const addDoctorCommand: AddCommands = (program, environment) => {
  command(
    program,
    'doctor',
    'checks configuration, KEK, disk, store, tokens, certificates, and the running server, its clock and its version; says what to do; exit code 1 when something fails',
  )
    .option('--url <url>', 'of the API listener; from the configuration when it is not given')
    .option(
      '--ca-file <file>',
      'the authority of its certificate; by default that certificate, by its file, or those of the system',
    )
    .option('--token-file <file>', 'also check this token, such as the service token of Bundoc')
    .action(async (options) => {
      const checkup = new Checkup();
      await checkAll(checkup, environment, options);
      checkup.print(options);
    });
};

async function checkAll(checkup: Checkup, environment: Environment, options: DoctorOptions): Promise<void> {
  checkup.variables(KNOWN_VARIABLES, environment);
  const config = checkup.config(() => readConfig(environment));
  if (config === undefined) return;
  const hasKek = await checkKek(checkup, config);
  await checkOutside(checkup, config);
  if (config.storage.kind === 'sqlite') await checkDisk(checkup, resolve(config.dataDir), 'BUNKMS_DATA_DIR');
  const isOpen = config.storage.kind === 'sqlite' || (await checkDatabase(checkup, config.storage.settings));
  if (hasKek && isOpen) await checkInstallation(checkup, config, environment, options);
  if (config.auditShip?.kind === 'file') await checkAuditCopy(checkup, resolve(config.auditShip.path));
  const installation = () => withStore(environment, installationOf);
  if (config.backupTo !== undefined)
    await checkBackups(checkup, new BackupFolder(config.backupTo, installation));
  if (config.archive !== undefined)
    await checkArchive(
      checkup,
      { place: config.archive, dataDir: config.dataDir },
      environment,
      installation,
    );
  for (const [name, files] of Object.entries({ 'api tls': config.tls, 'internal tls': config.internalTls }))
    await checkup.try(name, 'correct the files of the certificate', () => {
      const { notAfterMs } = files === undefined ? {} : readTlsMaterial(files);
      if (notAfterMs !== undefined) checkCertificate(checkup, name, 'the certificate', notAfterMs);
    });
  await checkServer(checkup, config, options);
}

/** Checks that the KEK ring can be read. Opening the installation shows whether it fits. */
async function checkKek(checkup: Checkup, config: BunkmsConfig): Promise<boolean> {
  const { kek } = config;
  const remedy =
    kek.kind === 'file'
      ? `correct ${kek.path} (BUNKMS_KEK_FILE), or put the KEK into it, readable by the user of the service`
      : 'give 32 bytes in base64 or hex in BUNKMS_KEK';
  const vault = await checkup.try('kek', remedy, () => loadRing(config, { warn: () => undefined }));
  if (vault === undefined) return false;
  if (kek.kind === 'file') warnOfOpenFile(checkup, 'kek file', kek.path);
  await checkSeal(checkup, config);
  return true;
}

/** Warns when the newest shares of the KEKs lack one that is in use: they are older than a rotation. */
async function checkShares(checkup: Checkup, { vault, keks, store, state }: CliKms): Promise<void> {
  const split = await newestSplit({ store, chainKey: state.chainKey });
  if (split === undefined) return;
  const needed = neededKeks(await keks.refresh()).filter((id) => vault.holds(id));
  const missing = needed.filter((id) => !split.kekIds.includes(id));
  const found = `the newest shares of the KEKs, split ${split.id} of ${split.time.slice(0, 10)},`;
  if (missing.length === 0) checkup.ok('kek shares', `${found} have every KEK in use`);
  else
    checkup.warn(
      'kek shares',
      `${found} are older than a rotation: they lack ${missing.join(', ')}`,
      'run "bunkms kek split" again, give out the new shares, and destroy the old ones',
    );
}

async function checkInstallation(
  checkup: Checkup,
  config: BunkmsConfig,
  environment: Environment,
  options: DoctorOptions,
): Promise<void> {
  await checkup.try('kek', KEK_MUST_FIT, () =>
    withKms(environment, async (kms) => {
      const { keys } = await kms.store.counts();
      checkup.ok(
        'kek',
        `the KEK ${kms.vault.currentKekId} opens the installation, which has ${counted(keys, 'key')}`,
      );
      await checkFormer(checkup, kms, config);
      await checkShares(checkup, kms);
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
const CREATE_ONE = 'create one with "bunkms init --service-token <file>"';

/** Checks that a token for Bundoc exists, and whether tokens without renewal expire soon. */
function checkTokens(checkup: Checkup, tokens: readonly TokenInfo[], damaged: readonly string[]): void {
  const nowMs = Date.now();
  if (damaged.length > 0)
    checkup.fail(
      'stored tokens',
      `the audit chain contradicts ${counted(damaged.length, 'token')} in the store`,
      'run "bunkms audit verify"',
    );
  const valid = tokens.filter(
    (token) =>
      token.typ === 'service' && token.revoked_at === undefined && Date.parse(token.expires_at) > nowMs,
  );
  if (!valid.some(({ scope }) => scope.includes('kms:export_key'))) {
    checkup.warn('token', 'no valid token may export keys, so Bundoc cannot work', CREATE_ONE);
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
  const { kid, x } = state.publicKey;
  await checkToken(checkup, {
    check: 'token file',
    name: 'BunKMS',
    remedy: CREATE_ONE,
    read: () => readText(path),
    keys: { keys: [{ kty: 'OKP', crv: 'Ed25519', use: 'sig', alg: 'EdDSA', kid, x }] },
    fault: ({ aud }) =>
      aud === 'bunkms'
        ? undefined
        : 'the token is for Bundoc, not for BunKMS: "bundoc doctor --token-file" checks it',
    // Bundoc refuses what is revoked here.
    isAccepted: async (_token, { jti }) => (await store.findActiveTokenFamily(jti)) !== undefined,
  });
}

/** Checks the running server at its API listener. */
async function checkServer(checkup: Checkup, config: BunkmsConfig, options: DoctorOptions): Promise<void> {
  const { caFile, url = ownUrl(config) } = options;
  const certFile = options.url === undefined ? config.tls?.cert?.path : undefined;
  const trust = await checkup.try('tls', 'name a readable file in --ca-file', () =>
    trustOf(caFile, certFile),
  );
  if (trust === undefined) return;
  const where = options.url === undefined ? 'BUNKMS_HOST and BUNKMS_PORT' : '--url';
  const expected = ['bunkms', 'bunkms-internal'] as const;
  await checkService(checkup, { name: 'BunKMS', url, where, trust, expected, judge: judgeBunkms });
}

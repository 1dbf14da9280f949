import { resolve } from 'node:path';
import {
  askService,
  below,
  checkService,
  type ServiceAnswer,
  type Trust,
} from '@bundoc/shared/cli/ask-service';
import { Checkup, checkClock, checkDisk, checkVersions } from '@bundoc/shared/cli/checkup';
import { inspectToken } from '@bundoc/shared/cli/explain-token';
import type { Claims } from '@bundoc/shared/contract/tokens';
import type { Environment } from '@bundoc/shared/runtime/config';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import { VERSION } from '@bundoc/shared/runtime/version';
import { type BundocConfig, readConfig } from '../config.ts';
import { readText } from './read-text.ts';
import { type ServiceAccess, type ServiceOptions, serviceAccess, urlOf } from './service-client.ts';

/**
 * Checks what a client needs of Bundoc and, in the service's own environment, what the service needs. Prints
 * one line per check, with a remedy.
 *
 * @returns false when a check fails.
 */
export async function doctorCommand(
  environment: Environment,
  options: ServiceOptions & { readonly json?: true },
): Promise<boolean> {
  const checkup = new Checkup();
  const isOwn = Boolean(environment['BUNDOC_KMS_TOKEN_FILE']);
  const config = isOwn
    ? await checkup.try('config', 'correct these variables (docs/configuration.md)', () =>
        readConfig(environment),
      )
    : undefined;
  const access = await serviceAccess(environment, options).catch((error: unknown) => {
    // On the service's own machine, a client token is optional.
    if (isOwn) checkup.warn('token', 'there is no client token to try', lineOf(error));
    else checkup.fail('token', lineOf(error), 'ask the operator of the service for a token');
    return undefined;
  });
  const isNamed = options.url !== undefined || Boolean(environment['BUNDOC_URL']);
  const url = access?.url ?? (isNamed ? undefined : ownUrl(config)) ?? urlOf(environment, options);
  const caFile = access?.caFile ?? options.caFile ?? (environment['BUNDOC_CA_FILE'] || undefined);
  await checkBundoc(checkup, { url, caFile }, access);
  if (config !== undefined) await checkOwnSide(checkup, config);
  if (options.json) console.log(JSON.stringify({ ok: !checkup.hasFailed, findings: checkup.findings }));
  else for (const line of checkup.lines()) console.log(line);
  return !checkup.hasFailed;
}

/** The local URL of the service with this configuration. */
function ownUrl(config: BundocConfig | undefined): string | undefined {
  if (config === undefined) return undefined;
  const { host, port, tls } = config;
  const reached = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  const name = reached.includes(':') ? `[${reached}]` : reached;
  return `${tls === undefined ? 'http' : 'https'}://${name}:${port}`;
}

async function checkBundoc(
  checkup: Checkup,
  { url, caFile }: Pick<ServiceAccess, 'url' | 'caFile'>,
  access: ServiceAccess | undefined,
): Promise<void> {
  const trust = await checkup.try('tls', 'name the file of the authority in --ca-file', () =>
    loadTrust(caFile),
  );
  if (trust === undefined) return;
  const where = 'by --url, BUNDOC_URL or a profile';
  const health = await checkService(checkup, { name: 'Bundoc', url, where, trust });
  if (health !== undefined) {
    checkClock(checkup, 'Bundoc', datesOf(health));
    checkVersions(
      checkup,
      { name: 'this command', version: VERSION },
      { name: 'Bundoc', version: versionOf(health) },
    );
    await checkReady(checkup, url, trust);
  }
  if (access !== undefined) await checkToken(checkup, access, health === undefined ? undefined : trust);
}

/** Reports the answer of `/ready` and the remedy. */
async function checkReady(checkup: Checkup, url: string, trust: Trust): Promise<void> {
  const remedy = 'ask again; see the log of the service';
  const answer = await checkup.try('ready', remedy, () => askService(below(url, '/ready'), trust));
  if (answer === undefined) return;
  const { reason, kms, kms_events: events } = answer.body;
  if (answer.status !== 200) {
    const remedies: Record<string, string> = {
      storage_unavailable: 'check the disk or the database of Bundoc; its log says what fails',
      kms_unavailable: 'start BunKMS; run "bunkms doctor" where it runs',
      storage_superseded:
        'stop one of the two copies of this storage; see docs/keys.md, "Storages and holders"',
    };
    checkup.fail(
      'ready',
      `Bundoc stores no documents now: ${String(reason ?? answer.body['status'])}`,
      remedies[String(reason)] ?? remedy,
    );
  } else checkup.ok('ready', 'Bundoc stores documents');
  if (kms === 'down')
    checkup.warn(
      'kms',
      'Bundoc does not reach BunKMS: only projects with a cached key work',
      'start BunKMS; run "bunkms doctor" where it runs',
    );
  else if (events === 'down')
    checkup.warn(
      'kms',
      'Bundoc gets no events from BunKMS: revocations take effect late',
      'the log of Bundoc says why the stream breaks',
    );
  else if (kms === 'up') checkup.ok('kms', 'Bundoc reaches BunKMS, and gets its events');
}

/** Checks a token, and whether the service accepts it. */
async function checkToken(checkup: Checkup, access: ServiceAccess, trust: Trust | undefined): Promise<void> {
  const remedy = 'get a new token, and run "bundoc login"';
  const text = await checkup.try('token', 'name a file that can be read in --token-file', async () =>
    typeof access.token === 'string' ? access.token : await access.token(),
  );
  if (text === undefined) return;
  const claims = await checkup.try('token', remedy, () => inspectToken(text).claims);
  if (claims === undefined) return;
  if (claims.aud !== 'bundoc') {
    checkup.fail('token', 'the token is for BunKMS', 'use one whose scopes begin with "docs:"');
    return;
  }
  if (!checkLife(checkup, 'token', claims, remedy)) return;
  if (trust === undefined) return;
  const answer = await checkup.try('token', remedy, () =>
    askService(below(access.url, '/v1/projects'), trust, { authorization: `Bearer ${text.trim()}` }),
  );
  if (answer === undefined) return;
  if (answer.status === 401)
    checkup.fail('token', 'Bundoc refuses the token: it is revoked, or of another installation', remedy);
  else
    checkup.ok(
      'token',
      `Bundoc accepts the token of ${claims.sub}: ${claims.scope.join(' ')}, projects ${claims.projects.join(' ') || 'none'}`,
    );
}

const HOUR_MS = 3_600_000;

/** @returns false when the token has expired. */
function checkLife(checkup: Checkup, check: string, { exp, iat }: Claims, remedy: string): boolean {
  const leftMs = exp * 1_000 - Date.now();
  const until = new Date(exp * 1_000).toISOString();
  if (leftMs <= 0) {
    checkup.fail(check, `the token expired at ${until}`, remedy);
    return false;
  }
  // Tokens with a short lifetime are always close to their end.
  if (leftMs < 24 * HOUR_MS && exp - iat > 7 * 86_400)
    checkup.warn(check, `the token ends at ${until}`, remedy);
  return true;
}

/** Checks what the service needs, in an environment with its configuration. */
async function checkOwnSide(checkup: Checkup, config: BundocConfig): Promise<void> {
  checkup.ok('config', 'the variables of the service are valid');
  if (config.storage.kind === 'files') await checkDisk(checkup, resolve(config.dataDir), 'BUNDOC_DATA_DIR');
  const { kms } = config;
  const trust = await checkup.try('kms tls', 'correct the BUNDOC_KMS_*_FILE variables', () =>
    kmsTrust(config),
  );
  if (trust === undefined) return;
  const health = await checkService(checkup, {
    name: 'BunKMS',
    url: kms.url,
    where: 'BUNDOC_KMS_URL',
    trust,
  });
  if (health !== undefined) {
    checkClock(checkup, 'BunKMS', datesOf(health));
    checkVersions(
      checkup,
      { name: 'this command', version: VERSION },
      { name: 'BunKMS', version: versionOf(health) },
    );
    await checkUnsealed(checkup, kms.url, trust);
  }
  await checkServiceToken(checkup, kms, health === undefined ? undefined : trust);
}

async function checkUnsealed(checkup: Checkup, url: string, trust: Trust): Promise<void> {
  const answer = await checkup.try('kek', 'ask again', () => askService(below(url, '/ready'), trust));
  if (answer?.body['status'] === 'ready') checkup.ok('kek', 'BunKMS is unsealed');
  else if (answer?.body['status'] === 'sealed')
    checkup.fail(
      'kek',
      'BunKMS is sealed: its KEK does not fit, or it does not trust its database',
      'run "bunkms doctor" where it runs',
    );
  else if (answer !== undefined)
    checkup.fail('kek', 'BunKMS is not ready', 'check its disk or database; its log says what fails');
}

const NEEDED = ['kms:create_key', 'kms:read_key', 'kms:rotate_key', 'kms:export_key'] as const;

async function checkServiceToken(
  checkup: Checkup,
  { tokenFile, url }: BundocConfig['kms'],
  trust: Trust | undefined,
): Promise<void> {
  const check = 'service token';
  const remedy = 'create one with "bunkms init --service-token", and put it in BUNDOC_KMS_TOKEN_FILE';
  const text = await checkup.try(check, remedy, async () => (await readText(tokenFile)).trim());
  if (text === undefined) return;
  const claims = await checkup.try(check, remedy, () => inspectToken(text).claims);
  if (claims === undefined) return;
  const lacking = NEEDED.filter((scope) => !claims.scope.includes(scope));
  if (claims.aud !== 'bunkms' || claims.typ !== 'service') {
    checkup.fail(check, `it is a ${claims.typ} token for ${claims.aud}`, remedy);
    return;
  }
  if (lacking.length > 0) {
    checkup.fail(check, `it lacks ${lacking.join(' ')}`, remedy);
    return;
  }
  if (!checkLife(checkup, check, claims, remedy) || trust === undefined) return;
  const storage = '00000000-0000-4000-8000-000000000000';
  const answer = await checkup.try(check, remedy, () =>
    askService(below(url, `/v1/storages/${storage}`), trust, { authorization: `Bearer ${text}` }),
  );
  if (answer === undefined) return;
  if (answer.status === 401)
    checkup.fail(check, 'BunKMS refuses it: it is revoked, or of another installation', remedy);
  else checkup.ok(check, `BunKMS accepts it; it expires at ${new Date(claims.exp * 1_000).toISOString()}`);
}

async function loadTrust(caFile: string | undefined): Promise<Trust> {
  return caFile === undefined ? {} : { ca: await readText(caFile) };
}

async function kmsTrust({ kms: { tls } }: BundocConfig): Promise<Trust> {
  const read = async (file: { readonly path: string } | undefined) =>
    file === undefined ? undefined : await readText(file.path);
  return { ca: await read(tls?.ca), cert: await read(tls?.cert), key: await read(tls?.key) };
}

function datesOf({ date, beforeMs, afterMs }: ServiceAnswer) {
  return { service: date, beforeMs, afterMs };
}

function versionOf({ body }: ServiceAnswer): string | undefined {
  return typeof body['version'] === 'string' ? body['version'] : undefined;
}

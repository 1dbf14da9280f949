import { resolve } from 'node:path';
import { below, type ServiceAnswer, type Trust } from '@bundoc/shared/cli/ask-service';
import { bundocAccess, ownBundocUrl, tokenText } from '@bundoc/shared/cli/bundoc-access';
import { checkDatabase } from '@bundoc/shared/cli/check-database';
import { checkService, checkToken, isTokenAccepted, judgeBunkms } from '@bundoc/shared/cli/check-service';
import { Checkup, checkDisk, warnOfOpenFile } from '@bundoc/shared/cli/checkup';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { readText } from '@bundoc/shared/cli/read-text';
import { formatError } from '@bundoc/shared/logs/error-line';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { type BundocConfig, readConfig } from '../config.ts';
import { KNOWN_VARIABLES } from '../known-variables.ts';
import { checkArchive } from './check-archive.ts';
import { type ServiceAccess, serviceAccess, serviceCommand } from './service-client.ts';

/**
 * `bundoc doctor`: checks what a client needs of Bundoc and, in the service's own environment, what the
 * service needs.
 */
export const addDoctorCommand: AddCommands = (program, environment) => {
  serviceCommand(
    program,
    'doctor',
    'checks URL, TLS, token, clock and versions, and disk, archive, BunKMS and service token where the service runs; says what to do; exit code 1 when something fails',
  ).action(async (options) => {
    const checkup = new Checkup();
    checkup.variables(KNOWN_VARIABLES, environment);
    const isOwn = Boolean(environment['BUNDOC_KMS_TOKEN_FILE']);
    const config = isOwn ? checkup.config(() => readConfig(environment)) : undefined;
    const access = await serviceAccess(environment, options).catch((error: unknown) => {
      // On the service's own machine, a client token is optional.
      if (isOwn) checkup.warn('token', 'there is no client token to try', formatError(error));
      else checkup.fail('token', formatError(error), 'ask the operator of the service for a token');
      return undefined;
    });
    const named = access ?? bundocAccess(environment, options);
    const remedy = 'correct BUNDOC_PORT, or name the service with --url';
    const url = named.url ?? (await checkup.try('url', remedy, () => ownBundocUrl(environment)));
    const checkDisks = async () => {
      if (config?.storage.kind === 'files')
        await checkDisk(checkup, resolve(config.dataDir), 'BUNDOC_DATA_DIR');
      else if (config !== undefined) await checkDatabase(checkup, config.storage);
      if (config?.archive !== undefined) {
        const place = { place: config.archive, dataDir: resolve(config.dataDir), clock: systemClock };
        await checkArchive(checkup, place, environment);
      }
      if (config?.moveTo !== undefined) await checkDatabase(checkup, config.moveTo);
    };
    if (access?.unusedUrl === undefined) await checkDisks();
    if (url !== undefined) await checkBundoc(checkup, { ...named, url }, access);
    if (access?.unusedUrl !== undefined) {
      const found = `${access.source} names ${access.url}, but the service of this environment is at ${access.unusedUrl}`;
      checkup.warn('profile', found, `to check that service, give --url ${access.unusedUrl}`);
      // Its disk says nothing of the other service.
      await checkDisks();
    }
    if (config !== undefined) await checkOwnSide(checkup, config);
    checkup.print(options);
  });
};

async function checkBundoc(
  checkup: Checkup,
  { url, source, caFile }: Pick<ServiceAccess, 'url' | 'source' | 'caFile'>,
  access: ServiceAccess | undefined,
): Promise<void> {
  const trust = await checkup.try('tls', 'name the file of the authority in --ca-file', () =>
    readTrust({ ca: caFile }),
  );
  if (trust === undefined) return;
  const isUp = await checkService(checkup, {
    name: 'Bundoc',
    url,
    where: source,
    trust,
    expected: ['bundoc'],
    judge: judgeBundoc,
  });
  if (access === undefined) return;
  await checkToken(checkup, {
    check: 'token',
    name: 'Bundoc',
    remedy: 'get a new token, and run "bundoc login"',
    read: () => tokenText(access.token),
    fault: ({ aud }) =>
      aud === 'bundoc' ? undefined : 'the token is for BunKMS: scopes for Bundoc begin with "docs:"',
    isAccepted: isUp ? (token) => isTokenAccepted(below(url, '/v1/projects'), trust, token) : undefined,
  });
}

const START_BUNKMS = 'start BunKMS, or correct BUNDOC_KMS_URL; run "bunkms doctor" where it runs';
/** What to do when Bundoc is not ready, by its reason. */
const NOT_READY: Readonly<Record<string, string>> = {
  storage_unavailable: 'check the disk or the database of Bundoc; its log says what fails',
  kms_unavailable: START_BUNKMS,
  storage_superseded: 'stop one of the two copies of this storage; see docs/keys.md, "Storages and holders"',
};

/** Judges the answer of Bundoc to `/ready`, after the disk. */
export function judgeBundoc(checkup: Checkup, { status, body }: ServiceAnswer): void {
  const { reason, kms, kms_events: events } = body;
  // The log has room for a while, and a small file may still fit.
  if (status === 200 && checkup.hasFailed('disk'))
    checkup.warn('ready', 'Bundoc stores documents, but not for long', 'see the line "disk"');
  else if (status === 200) checkup.ok('ready', 'Bundoc stores documents');
  else {
    const found = `Bundoc stores no documents now: ${String(reason ?? body['status'])}`;
    checkup.fail('ready', found, NOT_READY[String(reason)] ?? 'ask again; see the log of Bundoc');
  }
  if (kms === 'down')
    checkup.warn('kms', 'Bundoc does not reach BunKMS: only projects with a cached key work', START_BUNKMS);
  else if (events === 'down')
    checkup.warn(
      'kms',
      'Bundoc gets no events from BunKMS: revocations take effect late',
      'the log of Bundoc says why the stream breaks',
    );
  else if (kms === 'up') checkup.ok('kms', 'Bundoc reaches BunKMS, and gets its events');
}

const NEEDED = ['kms:create_key', 'kms:read_key', 'kms:rotate_key', 'kms:export_key'] as const;
/** Asking for a storage that does not exist shows whether a token is accepted. */
const NO_STORAGE = '/v1/storages/00000000-0000-4000-8000-000000000000';

/** Checks what the service needs, in an environment with its configuration. */
async function checkOwnSide(checkup: Checkup, { kms }: BundocConfig): Promise<void> {
  const { ca, cert, key } = kms.tls ?? {};
  // The disk of Bundoc says nothing of BunKMS.
  const ofKms = new Checkup();
  const trust = await ofKms.try('tls', 'correct the BUNDOC_KMS_*_FILE variables', () =>
    readTrust({ ca: ca?.path, cert: cert?.path, key: key?.path }),
  );
  const { url } = kms;
  const where = 'BUNDOC_KMS_URL';
  const expected = ['bunkms-internal'] as const;
  const service = { name: 'BunKMS', url, where, caFile: 'BUNDOC_KMS_CA_FILE', expected, judge: judgeBunkms };
  const isUp = trust !== undefined && (await checkService(ofKms, { ...service, trust }));
  checkup.add('kms', ofKms);
  warnOfOpenFile(checkup, 'service token file', kms.tokenFile);
  await checkToken(checkup, {
    check: 'service token',
    name: 'BunKMS',
    remedy: 'create one with "bunkms init --service-token", and put it in BUNDOC_KMS_TOKEN_FILE',
    read: () => readText(kms.tokenFile),
    fault: ({ aud, typ, scope }) => {
      if (aud !== 'bunkms' || typ !== 'service') return `it is a ${typ} token for ${aud}`;
      const lacking = NEEDED.filter((one) => !scope.includes(one));
      return lacking.length === 0 ? undefined : `it lacks ${lacking.join(' ')}`;
    },
    isAccepted: isUp ? (token) => isTokenAccepted(below(url, NO_STORAGE), trust, token) : undefined,
  });
}

async function readTrust(files: Trust): Promise<Trust> {
  const read = async (path: string | undefined) => (path === undefined ? undefined : await readText(path));
  return { ca: await read(files.ca), cert: await read(files.cert), key: await read(files.key) };
}

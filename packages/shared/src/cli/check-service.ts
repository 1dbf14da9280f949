import { isIP } from 'node:net';
import { z } from 'zod';
import { type Answering, answeringSchema } from '../contract/service-info.ts';
import type { Claims, Jwks } from '../contract/tokens.ts';
import { printable } from '../logs/printable.ts';
import { VERSION } from '../process/version.ts';
import { askService, below, type ServiceAnswer, type Trust } from './ask-service.ts';
import { type Checkup, checkCertificate, checkClock, checkVersions } from './checkup.ts';
import { inspectToken } from './explain-token.ts';

export interface CheckedService {
  readonly name: string;
  readonly url: string;
  /** What may answer there. */
  readonly expected: readonly Answering[];
  /** The option or variable that names the URL. */
  readonly where: string;
  readonly trust: Trust;
  /** The variable that names the authority of its certificate; by default the option `--ca-file`. */
  readonly caFile?: string;
  /** Judges the answer to `/ready`. */
  readonly judge: (checkup: Checkup, answer: ServiceAnswer) => void;
  /** How long the next answer may take, milliseconds; by default that of {@link askService}. */
  readonly withinMs?: () => number;
}

/**
 * Checks whether a service answers at its URL, its certificate, clock and version, and whether it is ready.
 *
 * @returns whether it answers.
 */
export async function checkService(checkup: Checkup, service: CheckedService): Promise<boolean> {
  const { name, url: text, where, trust } = service;
  const ask = (at: URL, path: string) => askService(below(at, path), trust, {}, service.withinMs?.());
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    const remedy = `give one such as http://127.0.0.1:8080 (${where})`;
    checkup.fail('url', `"${text}" is not an http or https URL`, remedy);
    return false;
  }
  let health: ServiceAnswer;
  try {
    health = await ask(url, '/health');
  } catch (error) {
    checkup.fail(...faultOf(error as NodeJS.ErrnoException, url, service));
    return false;
  }
  if (health.status !== 200 || health.body['status'] !== 'ok') {
    const found = `${url.origin} answers, but is not ${name} (status ${health.status})`;
    checkup.fail('url', found, `check ${where}`);
    return false;
  }
  const remedy = `ask again; see the log of ${name}`;
  const answer = await checkup.try('ready', remedy, () => ask(url, '/ready'));
  const answering = answeringSchema.safeParse(answer?.body['service']).data;
  if (answering !== undefined && !service.expected.includes(answering)) {
    checkup.fail('url', `${ANSWERING[answering]} answers at ${url.origin}`, wrongUrl(service));
    return false;
  }
  checkup.ok('url', `${name} answers at ${url.origin} (${where})`);
  checkTransport(checkup, name, url, health.certificateEndsMs);
  checkClock(checkup, name, health);
  checkVersions(checkup, VERSION, name, health.body['version']);
  if (answer !== undefined) service.judge(checkup, answer);
  return true;
}

const ANSWERING: Readonly<Record<Answering, string>> = {
  bundoc: 'Bundoc',
  bunkms: 'the API listener of BunKMS',
  'bunkms-internal': 'the internal listener of BunKMS',
};

function wrongUrl({ expected, where }: CheckedService): string {
  const wanted = expected.map((one) => ANSWERING[one]).join(' or ');
  return `give the URL of ${wanted} (${where})`;
}

/** Why the ring of BunKMS opens nothing; what answers is not trusted. */
const sealedSchema = z.object({ reason: z.string().max(1_024).transform(printable) });

/** Judges the answer of BunKMS to `/ready`, after the disk. */
export function judgeBunkms(checkup: Checkup, { body: { status, faults, sealed } }: ServiceAnswer): void {
  if (status === 'ready' && checkup.hasFailed('disk'))
    checkup.warn('ready', 'BunKMS stores keys, but not for long', 'see the line "disk"');
  else if (status === 'ready') checkup.ok('ready', 'BunKMS is unsealed, and its store is writable');
  else if (status !== 'sealed')
    checkup.fail('ready', 'BunKMS is not ready', 'check its disk or database; its log says what fails');
  else if (faults === undefined) {
    const { reason = 'the KEK does not fit the store' } = sealedSchema.safeParse(sealed).data ?? {};
    checkup.fail(
      'ready',
      `BunKMS is sealed: ${reason}`,
      reason.startsWith('no slot')
        ? 'make one of these outside keys work ("bunkms outside check"); BunKMS then unseals by itself'
        : 'add the KEK of the installation to its ring; BunKMS then unseals by itself',
    );
  } else
    checkup.fail(
      'ready',
      `BunKMS is sealed: it does not trust its database: ${String(faults)}`,
      'see "BunKMS is sealed" in docs/operations/alerts.md; do not restart it',
    );
}

export interface CheckedToken {
  readonly check: string;
  readonly remedy: string;
  readonly read: () => string | Promise<string>;
  /** The keys of its signature; it is not checked without them. */
  readonly keys?: Jwks;
  /** Why these claims are not those that are needed. */
  readonly fault?: (claims: Claims) => string | undefined;
  /** The service that the token is for. */
  readonly name: string;
  /** Whether the service accepts it; undefined when the service cannot be asked. */
  readonly isAccepted: ((token: string, claims: Claims) => Promise<boolean>) | undefined;
}

const DAY_MS = 86_400_000;

/** Checks a token, and whether its service accepts it. */
export async function checkToken(checkup: Checkup, checked: CheckedToken): Promise<void> {
  const { check, remedy, keys, name, isAccepted } = checked;
  await checkup.try(check, remedy, async () => {
    const token = (await checked.read()).trim();
    const { claims, signature } = inspectToken(token, keys);
    const { sub, scope, projects, iat, exp } = claims;
    const until = new Date(exp * 1_000).toISOString();
    const leftMs = exp * 1_000 - Date.now();
    const isOther = keys !== undefined && signature !== 'good';
    const faults = [
      checked.fault?.(claims),
      isOther ? 'the token is of another installation' : undefined,
      leftMs <= 0 ? `the token expired at ${until}` : undefined,
    ].filter((fault) => fault !== undefined);
    for (const fault of faults) checkup.fail(check, fault, remedy);
    if (faults.length > 0) return;
    // Tokens with a short lifetime are always close to their end.
    if (leftMs < DAY_MS && (exp - iat) * 1_000 > 7 * DAY_MS)
      checkup.warn(check, `the token ends at ${until}`, remedy);
    if (isAccepted === undefined) return;
    if (!(await isAccepted(token, claims)))
      checkup.fail(check, `${name} refuses the token: it is revoked, or of another installation`, remedy);
    else {
      const rights = `${scope.join(' ')}, projects ${projects.join(' ') || 'none'}`;
      checkup.ok(check, `${name} accepts the token of ${sub} until ${until}: ${rights}`);
    }
  });
}

/** Asks a service for a path, which answers 401 to a token that it does not accept. */
export async function isTokenAccepted(url: URL, trust: Trust, token: string): Promise<boolean> {
  return (await askService(url, trust, { authorization: `Bearer ${token}` })).status !== 401;
}

function checkTransport(checkup: Checkup, name: string, url: URL, endsMs: number | undefined): void {
  if (endsMs !== undefined) checkCertificate(checkup, 'tls', `the certificate of ${url.host}`, endsMs);
  else if (isThisMachine(url.hostname)) checkup.ok('tls', 'not needed on this machine');
  else checkup.warn('tls', `tokens go to ${url.origin} unencrypted`, `serve ${name} over TLS, and use https`);
}

function isThisMachine(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '');
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

const GIVE_CERTIFICATE = 'give the client certificate that the service requires';

/** The check that failed when a service gave no answer, what was found, and the remedy. */
function faultOf(
  { code = '', message }: NodeJS.ErrnoException,
  url: URL,
  { name, where, caFile = '--ca-file' }: CheckedService,
): [check: string, found: string, remedy: string] {
  const { host, hostname, protocol } = url;
  const isPlain = protocol === 'http:';
  switch (code) {
    case 'ECONNREFUSED':
      return ['url', `nothing listens at ${host}`, `start ${name}, or name its address (${where})`];
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return ['url', `the host name ${hostname} does not resolve`, `correct the host (${where}), or the DNS`];
    case 'ABORT_ERR':
    case 'ETIMEDOUT':
      return ['url', `${host} does not answer in time`, 'look for a firewall or a proxy in between'];
    case 'ECONNRESET':
    case 'HPE_INVALID_CONSTANT':
      return isPlain
        ? ['url', `${host} does not speak plain HTTP`, `try https://${host} (${where})`]
        : ['tls', `${host} closes the connection`, GIVE_CERTIFICATE];
    case 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED':
    case 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA':
      return ['tls', `${host} requires a client certificate of its authority`, GIVE_CERTIFICATE];
    case 'EPROTO':
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return ['tls', `${host} does not speak TLS`, `use http://${host} (${where}), or give it a certificate`];
    case 'CERT_HAS_EXPIRED':
      return [
        'tls',
        `the certificate of ${host} has expired`,
        'renew it; the service reads new files itself',
      ];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [
        'tls',
        `the certificate is not for ${hostname}`,
        'use a name that it has, or issue one for this',
      ];
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return [
        'tls',
        `the authority of the certificate of ${host} is unknown`,
        `name its file with ${caFile}`,
      ];
    default:
      return ['url', `${name} does not answer at ${url.origin}: ${message}`, `check ${where}`];
  }
}

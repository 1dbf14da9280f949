import { join, resolve } from 'node:path';
import { UserError } from './root.mjs';

const TLS_VARIABLES = ['BUNDOC_TLS_CERT_FILE', 'BUNKMS_TLS_CERT_FILE', 'BUNKMS_INTERNAL_TLS_CERT_FILE'];

/**
 * The environment of both services on a developer's machine: everything below `./data`, on 127.0.0.1.
 * Variables that are set take precedence; an empty one counts as absent, as in the services. Neither service
 * gets the other's variables: only BunKMS gets the KEK.
 *
 * @param {string} root
 * @param {NodeJS.ProcessEnv} inherited
 */
export function devSetup(root, inherited) {
  const set = (name, fallback) => inherited[name] || fallback;
  const path = (name, fallback) => resolve(root, set(name, fallback));
  const tls = TLS_VARIABLES.filter((name) => inherited[name]);
  if (tls.length > 0)
    throw new UserError(
      `npm start uses plain HTTP, only on this machine: unset ${tls.join(', ')}, or run the services separately`,
    );
  // A developer may inspect the memory of the services: it contains no keys of others.
  const NODE_ENV = set('NODE_ENV', 'development');

  const dataDir = path('BUNDOC_DATA_DIR', 'data');
  const secretsDir = join(dataDir, 'dev');
  const tokenFile = path('BUNDOC_KMS_TOKEN_FILE', join(secretsDir, 'kms-token'));
  const kekFile = inherited.BUNKMS_KEK ? undefined : path('BUNKMS_KEK_FILE', join(secretsDir, 'kek'));
  const kmsDataDir = path('BUNKMS_DATA_DIR', join(dataDir, 'kms'));

  const listener = (prefix, port) => {
    const host = set(`${prefix}HOST`, '127.0.0.1');
    const listens = {
      prefix,
      host,
      port: tcpPort(`${prefix}PORT`, set(`${prefix}PORT`, port)),
    };
    return { ...listens, url: `http://${urlHost(host)}:${listens.port}` };
  };
  const bundocApi = listener('BUNDOC_', '8080');
  const kmsApi = listener('BUNKMS_', '8081');
  const kmsInternal = listener('BUNKMS_INTERNAL_', '8082');

  return {
    secretsDir,
    tokenFile,
    kekFile,
    kmsDataDir,
    bundocApi,
    kmsApi,
    kmsInternal,
    bunkmsEnv: {
      ...without(inherited, 'BUNDOC_'),
      NODE_ENV,
      BUNKMS_HOST: kmsApi.host,
      BUNKMS_PORT: String(kmsApi.port),
      BUNKMS_INTERNAL_HOST: kmsInternal.host,
      BUNKMS_INTERNAL_PORT: String(kmsInternal.port),
      BUNKMS_DATA_DIR: kmsDataDir,
      // There is no load balancer.
      BUNKMS_DRAIN_MS: set('BUNKMS_DRAIN_MS', '0'),
      ...(kekFile === undefined ? {} : { BUNKMS_KEK_FILE: kekFile }),
    },
    bundocEnv: {
      ...without(inherited, 'BUNKMS_'),
      NODE_ENV,
      BUNDOC_HOST: bundocApi.host,
      BUNDOC_PORT: String(bundocApi.port),
      BUNDOC_DATA_DIR: dataDir,
      BUNDOC_KMS_URL: set('BUNDOC_KMS_URL', kmsInternal.url),
      BUNDOC_KMS_TOKEN_FILE: tokenFile,
      BUNDOC_DRAIN_MS: set('BUNDOC_DRAIN_MS', '0'),
    },
  };
}

/** The `init` arguments for this setup. It creates only missing parts. */
export function initArguments(setup) {
  return [
    'init',
    ...(setup.kekFile === undefined ? [] : ['--create-kek']),
    '--service-token',
    setup.tokenFile,
  ];
}

function without(env, prefix) {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith(prefix)));
}

function tcpPort(variable, text) {
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new UserError(`${variable}: must be a port from 1 to 65535, not "${text}"`);
}

/** A host to connect to: a wildcard becomes the loopback address. */
function urlHost(host) {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return host.includes(':') ? `[${host}]` : host;
}

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { docker, root } from './docker.ts';

/** Tolerates a busy machine. Not for tests in which BunKMS does not answer. */
const BUNDOC_KMS_DEADLINE_MS = '30000';

export type Service = 'init' | 'bunkms' | 'bundoc';

/** The project of docker-compose.yml, with its own name, ports and volumes. */
export interface Stack extends AsyncDisposable {
  readonly project: string;
  /** The image of BunKMS. Only this project uses and removes it: others may run at the same time. */
  readonly bunkmsImage: string;
  /** With these variables, `docker compose` acts on this project from any folder. */
  readonly environment: Readonly<Record<string, string>>;
  /** Runs docker compose on this project. */
  compose(...args: string[]): Promise<string>;
  /** Starts the containers that do not run, and waits until both services are healthy. */
  up(): Promise<void>;
  container(service: Service): string;
  /** The URL of a service on the host. It changes with a restart. */
  url(service: 'bunkms' | 'bundoc'): Promise<string>;
  /** The certificate authority of BunKMS. */
  ca(): Promise<string>;
  /** Bundoc's client certificate for BunKMS. */
  clientPems(): Promise<{ cert: string; key: string }>;
  exec(service: Service, ...command: string[]): Promise<string>;
  /** Issues a token with the command from the README. */
  token(...options: string[]): Promise<string>;
}

/**
 * Builds the images (from the build cache after the first time) and starts the project. Disposal removes
 * everything.
 */
export async function startStack(): Promise<Stack> {
  const name = `test-${randomBytes(4).toString('hex')}`;
  const project = `bundoc-${name}`;
  // With port 0, the engine chooses a free port.
  const environment = {
    COMPOSE_PROJECT_NAME: project,
    COMPOSE_FILE: join(root, 'docker-compose.yml'),
    BUNDOC_TAG: name,
    BUNDOC_PORT: '0',
    BUNKMS_PORT: '0',
    BUNDOC_KMS_DEADLINE_MS,
  };
  const compose = (...args: string[]) =>
    docker(['compose', ...args], { env: environment, timeoutMs: 400_000 });
  const container = (service: Service) => `${project}-${service}-1`;
  const exec = (service: Service, ...command: string[]) => docker(['exec', container(service), ...command]);
  const remove = async () => {
    await compose('down', '--volumes', '--remove-orphans', '--timeout', '5');
    // Compose labels images with the name of the project, so each project has its own images with shared
    // layers. The next project builds from the cache.
    const images = await docker([
      ...['image', 'ls', '--all', '--quiet', '--filter'],
      `label=com.docker.compose.project=${project}`,
    ]);
    if (images !== '') await docker(['image', 'rm', '--force', ...new Set(images.split('\n'))]);
  };

  const stack: Stack = {
    project,
    bunkmsImage: `bundoc/bunkms:${name}`,
    environment,
    compose,
    container,
    exec,
    up: async () => {
      await compose('up', '--build', '--detach');
      await Promise.all([untilHealthy(container('bunkms')), untilHealthy(container('bundoc'))]);
    },
    url: async (service) => {
      const address = await compose('port', service, service === 'bundoc' ? '8080' : '8081');
      return `${service === 'bundoc' ? 'http' : 'https'}://${address}`;
    },
    ca: () => exec('bunkms', 'cat', '/var/lib/bunkms-tls/ca.pem'),
    clientPems: async () => ({
      cert: await exec('bundoc', 'cat', '/var/lib/bundoc-tls/cert.pem'),
      key: await exec('bundoc', 'cat', '/var/lib/bundoc-tls/key.pem'),
    }),
    // On a busy disk, the service may hold its database for longer than the command waits.
    token: (...args) => eventually(() => exec('bunkms', 'bunkms', 'token', 'issue', ...args)),
    [Symbol.asyncDispose]: remove,
  };
  try {
    await stack.up();
    return stack;
  } catch (error) {
    const logs = await compose('logs', '--no-color').catch((failure: Error) => failure.message);
    await remove();
    throw new Error(`the project did not start; its logs:\n${logs}`, { cause: error });
  }
}

/** Waits until the container's own health check passes. */
async function untilHealthy(container: string, timeoutMs = 120_000): Promise<void> {
  await eventually(async () => {
    const health = await docker(['inspect', '--format', '{{.State.Health.Status}}', container]);
    if (health !== 'healthy') throw new Error(`${container} is ${health}`);
  }, timeoutMs);
}

/** Retries until `attempt` does not throw. @throws the error of the last attempt, after `timeoutMs`. */
export async function eventually<T>(attempt: () => Promise<T>, timeoutMs = 60_000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(250);
    }
  }
}

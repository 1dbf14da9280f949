import { execFile, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe } from 'vitest';

/** The tests remove everything that they start. The reaper would need another image. */
process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';

export const root = fileURLToPath(new URL('../../../', import.meta.url));

/** Unlike "docker info", this fails when the command line is installed but no engine runs. */
const engine = spawnSync('docker', ['version', '--format', '{{.Server.Version}}'], { timeout: 10_000 });
const compose = spawnSync('docker', ['compose', 'version'], { timeout: 10_000 });
const hasDocker = engine.status === 0 && compose.status === 0;
if (!hasDocker && process.env['REQUIRE_DOCKER'] === '1')
  throw new Error('REQUIRE_DOCKER=1, and no Docker engine with compose answers');

/** Skips the tests and marks their name when no Docker engine answers. */
export function describeWithDocker(name: string, tests: () => void): void {
  if (hasDocker) describe(name, tests);
  else describe.skip(`${name} [skipped: no Docker engine with compose answers]`, tests);
}

export interface DockerOptions {
  /** Variables in addition to the inherited ones. */
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

const OUTPUT_BYTES_MAX = 256 * 1_048_576;

/** Runs the docker command line. @returns standard output, trimmed. @throws Error with all of its output. */
export async function docker(args: readonly string[], options: DockerOptions = {}): Promise<string> {
  return (await dockerBytes(args, options)).toString('utf8').trim();
}

/** As {@link docker}, for output that is not text. */
export function dockerBytes(args: readonly string[], options: DockerOptions = {}): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    execFile(
      'docker',
      args,
      {
        cwd: root,
        encoding: 'buffer',
        env: { ...process.env, ...options.env },
        timeout: options.timeoutMs ?? 60_000,
        maxBuffer: OUTPUT_BYTES_MAX,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else
          reject(
            new Error(`docker ${args.join(' ')}: ${error.code}\n${stderr}\n${stdout.subarray(0, 4_096)}`),
          );
      },
    );
  });
}

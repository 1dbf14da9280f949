import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { pathOf } from '@bundoc/shared/testing/programs';

/** The tests remove everything that they start. The reaper would need another image. */
process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';

export const root = fileURLToPath(new URL('../../../', import.meta.url));

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
      pathOf('docker') ?? 'docker',
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

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PROGRAMS, pathOf } from '@bundoc/shared/testing/programs';

/** An answer of KMS. */
export interface KmsAnswer {
  readonly status: number;
  readonly body: string;
}

const REGION = 'eu-central-1';

/** moto, which simulates AWS KMS with real AES-256-GCM, on a free loopback port. It checks no signatures. */
export class MotoServer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #url: string;

  private constructor(child: ChildProcess, exited: Promise<unknown>, url: string) {
    this.#child = child;
    this.#exited = exited;
    this.#url = url;
  }

  /** @throws when moto is not installed, or does not start. */
  static async start(): Promise<MotoServer> {
    const python = pathOf('moto');
    if (python === undefined) throw new Error(`${PROGRAMS.moto.title} is missing`);
    const child = spawn(python, ['-m', 'moto.server', '-p', '0'], { stdio: ['ignore', 'ignore', 'pipe'] });
    const exited = once(child, 'exit');
    const onExit = () => child.kill('SIGKILL');
    process.once('exit', onExit);
    void exited.then(() => process.off('exit', onExit));
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stderr })) {
      const url = /Running on (http:\S+)/.exec(line)?.[1];
      if (url !== undefined) {
        // Its log is read, and thrown away: a full pipe would stop it.
        child.stderr.resume();
        return new MotoServer(child, exited, url);
      }
      lines.push(line);
    }
    throw new Error(`moto did not start:\n${lines.join('\n')}`);
  }

  /** Calls an operation of KMS, such as `Encrypt`. */
  async call(operation: string, sent: unknown): Promise<KmsAnswer> {
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': `TrentService.${operation}`,
        authorization: `AWS4-HMAC-SHA256 Credential=moto/20261202/${REGION}/kms/aws4_request`,
      },
      body: JSON.stringify(sent),
    });
    return { status: response.status, body: await response.text() };
  }

  /** @returns the ARN of a new symmetric key. */
  async createKey(): Promise<string> {
    const { body } = await this.call('CreateKey', {});
    return (JSON.parse(body) as { KeyMetadata: { Arn: string } }).KeyMetadata.Arn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

import { type MotoProcess, startMoto } from '@bundoc/shared/testing/moto-process';

/** An answer of KMS. */
export interface KmsAnswer {
  readonly status: number;
  readonly body: string;
}

const REGION = 'eu-central-1';

/** moto as AWS KMS, with real AES-256-GCM. */
export class MotoServer implements AsyncDisposable {
  readonly #process: MotoProcess;

  private constructor(process: MotoProcess) {
    this.#process = process;
  }

  /** @throws when moto is not installed, or does not start. */
  static async start(): Promise<MotoServer> {
    return new MotoServer(await startMoto());
  }

  /** Calls an operation of KMS, such as `Encrypt`. */
  async call(operation: string, sent: unknown): Promise<KmsAnswer> {
    const response = await fetch(this.#process.url, {
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
    await this.#process[Symbol.asyncDispose]();
  }
}

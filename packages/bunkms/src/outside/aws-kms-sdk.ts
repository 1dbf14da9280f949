import type { AwsCredentials } from '@bundoc/shared/aws/credentials';
import { request } from 'undici';
import { type HttpAgent, noAnswerOf } from './http-agent.ts';
import { OutsideKeyError } from './port.ts';

/** What we use of `@aws-sdk/client-kms`. Without the package, its own types are missing too. */
export interface KmsSdk {
  readonly KMS: new (config: KmsConfig) => KmsClient;
}

interface KmsConfig {
  readonly region: string;
  readonly endpoint?: string;
  readonly profile?: string;
  readonly credentials?: AwsCredentials;
  readonly requestHandler: AwsHttp;
  readonly maxAttempts: number;
  readonly retryMode: string;
  readonly ignoreConfiguredEndpointUrls: boolean;
}

export interface KmsCallOptions {
  readonly abortSignal: AbortSignal;
}

/** What the SDK adds to answers and errors. */
export interface KmsAnswer {
  readonly $metadata?: { readonly requestId?: string | undefined } | undefined;
}

export interface KmsClient {
  readonly config: { readonly credentials: () => Promise<unknown> };
  encrypt(
    input: { KeyId: string; Plaintext: Uint8Array },
    options: KmsCallOptions,
  ): Promise<KmsAnswer & { readonly CiphertextBlob?: Uint8Array | undefined }>;
  decrypt(
    input: { KeyId: string; CiphertextBlob: Uint8Array },
    options: KmsCallOptions,
  ): Promise<KmsAnswer & { readonly Plaintext?: Uint8Array | undefined }>;
  destroy(): void;
}

/** Without a signal: calls of the SDK that fetch credentials, such as those of STS. */
const CREDENTIALS_MS = 5_000;

interface AwsRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/**
 * Sends what the SDK has signed. The SDK's own handler reads answers of any length, and does not end with the
 * signal of its call once the head of an answer is there. Calls of STS use this one too.
 */
export class AwsHttp {
  readonly metadata = { handlerProtocol: 'http/1.1' };
  readonly #agent: HttpAgent;

  constructor(agent: HttpAgent) {
    this.#agent = agent;
  }

  async handle(sent: AwsRequest, options: { readonly abortSignal?: unknown } = {}) {
    const { protocol, hostname, port, path, query = {}, method, headers } = sent;
    const { abortSignal } = options;
    const url = new URL(`${protocol}//${hostname}${port === undefined ? '' : `:${port}`}${path}`);
    for (const [name, value] of Object.entries(query))
      for (const one of [value ?? ''].flat()) url.searchParams.append(name, one);
    try {
      const { statusCode, ...answer } = await request(url, {
        dispatcher: this.#agent.current(),
        method,
        headers,
        body: sent.body ?? null,
        signal: abortSignal instanceof AbortSignal ? abortSignal : AbortSignal.timeout(CREDENTIALS_MS),
      });
      const body = new Uint8Array(await answer.body.arrayBuffer());
      const texts = Object.entries(answer.headers).map(([name, value]) => [name, [value].flat().join(', ')]);
      return { response: { statusCode, headers: Object.fromEntries(texts), body } };
    } catch (error) {
      if (error instanceof OutsideKeyError) throw error;
      throw noAnswerOf(url.origin, error);
    }
  }

  updateHttpClientConfig(): void {
    // The SDK offers its settings; none is needed.
  }

  httpHandlerConfigs() {
    return {};
  }
}

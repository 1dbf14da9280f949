import { stampOf } from '@bundoc/shared/files/file-stamp';
import { readAwsCredentials } from './aws-credentials.ts';
import { AwsHttp, type KmsAnswer, type KmsCallOptions, type KmsClient, type KmsSdk } from './aws-kms-sdk.ts';
import { HttpAgent } from './http-agent.ts';
import { quoted } from './http-calls.ts';
import { importOptional } from './optional-package.ts';
import {
  type CallFacts,
  type OutsideFault,
  OutsideKeyError,
  type OutsideProvider,
  requestIdOf,
} from './port.ts';

export interface AwsKmsKeyOptions {
  /** Of a key, not of an alias. */
  readonly keyArn: string;
  /** That of the ARN by default. */
  readonly region?: string | undefined;
  /** Of an endpoint in a VPC, or of a service that answers as AWS does. */
  readonly endpoint?: string | undefined;
  /** PEM of the authorities of KMS and STS; the system's when absent. Read again when it changes. */
  readonly caFile?: string | undefined;
  /** Access keys in the shared credentials format. Read again when it changes. */
  readonly credentialsFile?: string | undefined;
  /** A section of that file, or of the files of AWS in the home folder. */
  readonly profile?: string | undefined;
}

/**
 * A symmetric key of AWS KMS. Its credential needs `kms:Encrypt` and `kms:Decrypt` for that key.
 *
 * Without a `credentialsFile` the SDK finds a credential itself. All of these work without further packages,
 * in this order:
 *
 * 1. `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, unless a profile is named;
 * 2. `~/.aws/credentials` and `~/.aws/config`, with assumed roles, single sign-on and `credential_process`;
 * 3. a web identity, `AWS_WEB_IDENTITY_TOKEN_FILE` with `AWS_ROLE_ARN`: IAM roles for service accounts;
 * 4. a container, `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI`: ECS, and Pod Identity of EKS;
 * 5. the role of an EC2 instance.
 *
 * The SDK renews those that expire. It reads access keys of 1 and 2 once, so a change there needs a restart.
 * `AWS_ENDPOINT_URL` and its kin have no effect: the entry alone says where keys are sent.
 *
 * Source: the API reference of AWS KMS, with its common errors; the sources of the SDK, 3.1164.
 */
export class AwsKmsKey implements OutsideProvider {
  readonly realName: string;
  readonly #sdk: KmsSdk;
  readonly #options: AwsKmsKeyOptions;
  readonly #agent: HttpAgent;
  #current: { readonly stamp: string; readonly client: KmsClient } | undefined;

  private constructor(options: AwsKmsKeyOptions, sdk: KmsSdk) {
    this.realName = options.keyArn;
    this.#sdk = sdk;
    this.#options = options;
    this.#agent = new HttpAgent(options.caFile);
  }

  /** @throws OutsideKeyError `unavailable` without the package `@aws-sdk/client-kms`. */
  static async open(options: AwsKmsKeyOptions): Promise<AwsKmsKey> {
    return new AwsKmsKey(options, await importOptional<KmsSdk>('@aws-sdk/client-kms'));
  }

  async wrap(secret: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    const input = { KeyId: this.realName, Plaintext: secret };
    const answer = await this.#ask(signal, (client, options) => client.encrypt(input, options));
    return bytesOf(answer.CiphertextBlob);
  }

  async unwrap(blob: Uint8Array, signal: AbortSignal, facts?: CallFacts): Promise<Buffer> {
    // Without the id, KMS would open the bytes with any key that our credential may use.
    const input = { KeyId: this.realName, CiphertextBlob: blob };
    const answer = await this.#ask(signal, (client, options) => client.decrypt(input, options), facts);
    return bytesOf(answer.Plaintext);
  }

  /**
   * Nothing to ask: KMS answers with an error of {@link DENIED} only after it has verified the signature and
   * the session token. A bad credential has errors of its own: `UnrecognizedClientException`,
   * `InvalidClientTokenId`, `InvalidSignatureException`, `IncompleteSignature`, `ExpiredTokenException`,
   * `MissingAuthenticationToken`.
   */
  async checkCredential(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    this.#current?.client.destroy();
    await this.#agent[Symbol.asyncDispose]();
  }

  async #ask<A extends KmsAnswer>(
    signal: AbortSignal,
    call: (client: KmsClient, options: KmsCallOptions) => Promise<A>,
    facts: CallFacts = {},
  ): Promise<A> {
    const client = this.#currentClient();
    // Apart from the call: an "access denied" of STS or of single sign-on concerns our credential, not the
    // key.
    await client.config.credentials().catch((error: unknown) => {
      throw new OutsideKeyError('unavailable', `there is no credential for AWS: ${nameOf(error)}`, {
        remedy: 'name a credentials_file in the entry, or give this machine a role',
      });
    });
    try {
      const answer = await call(client, { abortSignal: signal });
      facts.requestId = requestIdOf(answer.$metadata?.requestId);
      return answer;
    } catch (error) {
      facts.requestId = requestIdOf((error as KmsAnswer).$metadata?.requestId);
      throw error instanceof OutsideKeyError ? error : refusalOf(error);
    }
  }

  /** A client reads its credential once, so each state of the file has its own. */
  #currentClient(): KmsClient {
    const { keyArn, region, endpoint, credentialsFile, profile } = this.#options;
    const stamp = credentialsFile === undefined ? '' : stampOf(credentialsFile);
    if (this.#current?.stamp === stamp) return this.#current.client;
    const client = new this.#sdk.KMS({
      region: region ?? (keyArn.split(':')[3] as string),
      requestHandler: new AwsHttp(this.#agent),
      maxAttempts: 1,
      retryMode: 'standard',
      ignoreConfiguredEndpointUrls: true,
      ...(endpoint !== undefined && { endpoint }),
      ...(credentialsFile === undefined
        ? profile !== undefined && { profile }
        : { credentials: readAwsCredentials(credentialsFile, profile ?? 'default') }),
    });
    this.#current?.client.destroy();
    this.#current = { stamp, client };
    return client;
  }
}

/** The holder forbids the use, has disabled the key, or has destroyed it. */
const DENIED: ReadonlySet<string> = new Set([
  'AccessDeniedException',
  'DisabledException',
  'NotFoundException',
]);
/** `KMSInvalidStateException` is also the general failure of a key store outside of AWS. */
const PENDING = /\bis pending (?:deletion|import|replica deletion)\b/;
const DAMAGED: ReadonlySet<string> = new Set(['InvalidCiphertextException', 'IncorrectKeyException']);

const CREDENTIAL = 'put an access key that works into credentials_file, or give this machine a role';
const REMEDIES: Readonly<Record<string, string>> = {
  AccessDeniedException: 'allow kms:Encrypt and kms:Decrypt for the ARN',
  DisabledException: 'enable the key',
  NotFoundException: 'correct key_arn in the entry',
  InvalidKeyUsageException: 'take a symmetric key that encrypts and decrypts',
  ExpiredTokenException: CREDENTIAL,
  IncompleteSignature: CREDENTIAL,
  InvalidClientTokenId: CREDENTIAL,
  InvalidSignatureException: `${CREDENTIAL}; also set the clock of this machine`,
  MissingAuthenticationToken: CREDENTIAL,
  UnrecognizedClientException: CREDENTIAL,
};

/**
 * An error of the SDK as ours. It is not the cause of ours, and only a denial is quoted: the message about a
 * wrong signature repeats the session token, and that about an answer without JSON repeats a part of it.
 */
function refusalOf(error: unknown): OutsideKeyError {
  const fault = faultOf(error);
  const why = fault === 'denied' ? `: ${quoted((error as Error).message)}` : '';
  const { name } = error as Error;
  const remedy = Object.hasOwn(REMEDIES, name) ? REMEDIES[name] : undefined;
  return new OutsideKeyError(fault, `AWS KMS answered with ${nameOf(error)}${why}`, { remedy });
}

function faultOf(error: unknown): OutsideFault {
  const { name, message } = error as Error;
  if (DENIED.has(name)) return 'denied';
  if (name === 'KMSInvalidStateException') return PENDING.test(message) ? 'denied' : 'unavailable';
  return DAMAGED.has(name) ? 'damaged' : 'unavailable';
}

function nameOf(error: unknown): string {
  return error instanceof Error ? quoted(error.name) : 'an unknown error';
}

function bytesOf(answered: Uint8Array | undefined): Buffer {
  if (answered === undefined)
    throw new OutsideKeyError('unavailable', 'AWS KMS answered without what was asked for');
  return Buffer.from(answered.buffer, answered.byteOffset, answered.byteLength);
}

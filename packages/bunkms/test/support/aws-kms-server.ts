import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { canonicalRequest, parseAuthorization, signatureOf } from '@bundoc/shared/testing/sigv4';
import type { CertifiedKey } from '../../src/cli/authority.ts';
import type { KmsAnswer, MotoServer } from './moto-server.ts';

/** A credential that the server knows. */
export interface KnownCredential {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Empty for an access key of a user. */
  readonly sessionToken: string;
  isExpired: boolean;
}

const CLOCK_SKEW_MS = 15 * 60_000;

/**
 * AWS KMS as far as moto leaves it out. It verifies signatures of version 4, session tokens and their end,
 * refuses disabled keys, and holds Decrypt to the key that it names. All else comes from moto.
 */
export class AwsKmsServer implements AsyncDisposable {
  readonly credentials = new Map<string, KnownCredential>();
  /** Operations that were asked for, in order. */
  readonly asked: string[] = [];
  /** Takes a request in place of the server. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  readonly #server: Server;
  readonly #moto: MotoServer;
  #scheme = 'http';

  private constructor(server: Server, moto: MotoServer) {
    this.#server = server;
    this.#moto = moto;
  }

  /** @param pair with it, the server speaks TLS. */
  static async start(moto: MotoServer, pair?: CertifiedKey): Promise<AwsKmsServer> {
    const server = pair === undefined ? createServer() : createTlsServer({ cert: pair.cert, key: pair.key });
    const kms = new AwsKmsServer(server, moto);
    kms.#scheme = pair === undefined ? 'http' : 'https';
    server.on('request', (request, response) => void kms.#answer(request, response));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return kms;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  newCredential({ isTemporary = true } = {}): KnownCredential {
    const credential = {
      accessKeyId: `ASIA${randomBytes(8).toString('hex').toUpperCase()}`,
      secretAccessKey: randomBytes(30).toString('base64'),
      sessionToken: isTemporary ? randomBytes(96).toString('base64') : '',
      isExpired: false,
    };
    this.credentials.set(credential.accessKeyId, credential);
    return credential;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const operation = String(request.headers['x-amz-target']).replace('TrentService.', '');
    this.asked.push(operation);
    if (this.intercept !== undefined) return this.intercept(request, response);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const { status, body: text } =
      this.#refuseSignature(request, body) ?? (await this.#reply(operation, JSON.parse(body.toString())));
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(text);
  }

  #refuseSignature({ method = '', url = '', headers }: IncomingMessage, body: Buffer): KmsAnswer | undefined {
    const header = parseAuthorization(headers.authorization ?? '');
    if (header === undefined) return refusal(403, 'IncompleteSignature', 'no signature of version 4');
    const known = this.credentials.get(header.accessKeyId);
    const token = headers['x-amz-security-token'] ?? '';
    if (known === undefined || token !== known.sessionToken)
      return refusal(
        403,
        'UnrecognizedClientException',
        'The security token included in the request is invalid.',
      );
    const [path = '', query = ''] = url.split('?');
    const signed = { method, path, query, headers: headers as Record<string, string>, body };
    const canonical = canonicalRequest(signed, header.signedHeaders);
    const time = String(headers['x-amz-date']);
    const ofToken = token === '' ? [] : ['x-amz-security-token'];
    const isWhole = ['host', 'x-amz-date', 'x-amz-target', ...ofToken].every((name) =>
      header.signedHeaders.includes(name),
    );
    if (!isWhole || signatureOf(canonical, header, time, known.secretAccessKey) !== header.signature) {
      const text = `The request signature we calculated does not match. The Canonical String should have been '${canonical}'`;
      return refusal(403, 'InvalidSignatureException', text);
    }
    const sentMs = Date.parse(time.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
    if (!(Math.abs(Date.now() - sentMs) < CLOCK_SKEW_MS))
      return refusal(403, 'InvalidSignatureException', `Signature expired: ${time}`);
    if (known.isExpired)
      return refusal(
        403,
        'ExpiredTokenException',
        `The security token ${token} included in the request is expired`,
      );
    return undefined;
  }

  async #reply(operation: string, sent: { readonly KeyId?: string }): Promise<KmsAnswer> {
    if (sent.KeyId !== undefined) {
      const { status, body } = await this.#moto.call('DescribeKey', { KeyId: sent.KeyId });
      if (status !== 200) return { status, body };
      const { KeyMetadata: key } = JSON.parse(body) as { KeyMetadata: { KeyState: string } };
      if (key.KeyState === 'Disabled') return refusal(400, 'DisabledException', `${sent.KeyId} is disabled.`);
      if (key.KeyState === 'PendingDeletion')
        return refusal(400, 'KMSInvalidStateException', `${sent.KeyId} is pending deletion.`);
    }
    if (operation !== 'Decrypt') return await this.#moto.call(operation, sent);
    // moto opens with the key that the bytes name, so the other key shows here.
    const answer = await this.#moto.call(operation, { ...sent, KeyId: undefined });
    const { KeyId } = JSON.parse(answer.body) as { KeyId?: string };
    if (answer.status === 200 && sent.KeyId !== undefined && KeyId !== sent.KeyId)
      return refusal(
        400,
        'IncorrectKeyException',
        'The key ID in the request does not identify a key that can.',
      );
    return answer;
  }
}

/** An error, as KMS sends it. */
export function refusal(status: number, name: string, message: string): KmsAnswer {
  return { status, body: JSON.stringify({ __type: name, message }) };
}

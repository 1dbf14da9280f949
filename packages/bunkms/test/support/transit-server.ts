import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

interface TransitAnswer {
  readonly status: number;
  readonly body?: unknown;
}

/** A token of the server. */
export interface TransitToken {
  ttl: number;
  renewable: boolean;
  isValid: boolean;
  /** Whether a policy lets it use keys. */
  mayUse: boolean;
  /** Whether it may make keys, policies and tokens. */
  mayAdminister?: boolean;
}

/**
 * A server that answers as the documentation of OpenBao describes its transit engine and its tokens, since
 * the program itself cannot be had here. Its ciphertexts are real: AES-256-GCM, in the form `vault:v1:…`.
 */
export class TransitServer implements AsyncDisposable {
  readonly tokens = new Map<string, TransitToken>();
  readonly keys = new Map<string, Buffer>();
  /** Texts of policies by name. */
  readonly #policies = new Map<string, string>();
  /** Paths that were asked for, in order. */
  readonly asked: string[] = [];
  /** The ids that it gave its answers to allowed requests, in order; what else it answers has none. */
  readonly requestIds: string[] = [];
  /** Takes a request in place of the server. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<TransitServer> {
    const server = createServer();
    const transit = new TransitServer(server);
    server.on('request', (request, response) => void transit.#answer(request, response));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return transit;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  newToken(more: Partial<TransitToken> = {}): string {
    const token = `hvs.${randomBytes(18).toString('base64url')}`;
    this.tokens.set(token, { ttl: 3_600, renewable: true, isValid: true, mayUse: true, ...more });
    return token;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.asked.push(`${request.method} ${request.url}`);
    if (this.intercept !== undefined) return this.intercept(request, response);
    let text = '';
    for await (const chunk of request) text += String(chunk);
    const { status, body } = this.#reply(request, text === '' ? {} : JSON.parse(text));
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(body === undefined ? '' : JSON.stringify(status === 200 ? this.#withId(body) : body));
  }

  #withId(body: unknown): object {
    const id = randomUUID();
    this.requestIds.push(id);
    return { request_id: id, ...(body as object) };
  }

  #reply({ method, url = '', headers }: IncomingMessage, sent: Record<string, unknown>): TransitAnswer {
    const token = this.tokens.get(String(headers['x-vault-token']));
    if (token?.isValid !== true) return refused(403, 'permission denied');
    if (token.mayAdminister === true) return this.#administer(`${method} ${url}`, sent);
    if (url === '/v1/auth/token/lookup-self')
      return { status: 200, body: { data: { ttl: token.ttl, renewable: token.renewable } } };
    if (url === '/v1/auth/token/renew-self')
      return { status: 200, body: { auth: { lease_duration: token.ttl } } };
    const [, operation, name = ''] = /^\/v1\/transit\/(encrypt|decrypt)\/(.+)$/.exec(url) ?? [];
    if (operation === undefined) return refused(404, 'no handler for route');
    if (!token.mayUse) return refused(403, '1 error occurred:\n\t* permission denied\n\n');
    const key = this.keys.get(name);
    if (key === undefined) return refused(400, 'encryption key not found');
    return operation === 'encrypt'
      ? encrypt(key, String(sent['plaintext']))
      : decrypt(key, String(sent['ciphertext']));
  }

  #administer(request: string, sent: Record<string, unknown>): TransitAnswer {
    const [, kind = '', name = ''] =
      /^POST \/v1\/(sys\/mounts|transit\/keys|auth\/token)\/([\w-]+)$/.exec(request) ?? [];
    const [, policy] = /^PUT \/v1\/sys\/policies\/acl\/([\w-]+)$/.exec(request) ?? [];
    if (policy !== undefined) this.#policies.set(policy, String(sent['policy']));
    else if (kind === 'transit/keys') this.keys.set(name, randomBytes(32));
    else if (kind === 'auth/token' && name === 'create') {
      const policies = sent['policies'] as string[];
      const mayUse = policies.some((one) => allowsUse(this.#policies.get(one) ?? ''));
      return { status: 200, body: { auth: { client_token: this.newToken({ mayUse }) } } };
    } else if (kind !== 'sys/mounts' || sent['type'] !== 'transit')
      return refused(404, 'no handler for route');
    return { status: 204 };
  }
}

/** Whether a policy lets its tokens use a key for both. */
function allowsUse(policy: string): boolean {
  return ['encrypt', 'decrypt'].every((operation) =>
    new RegExp(`path "transit/${operation}/[^"]+" \\{ capabilities = \\["update"\\] \\}`).test(policy),
  );
}

function refused(status: number, message: string): TransitAnswer {
  return { status, body: { errors: [message] } };
}

function encrypt(key: Buffer, plaintext: string): TransitAnswer {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  const sealed = Buffer.concat([
    nonce,
    cipher.update(plaintext, 'base64'),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  return {
    status: 200,
    body: { data: { ciphertext: `vault:v1:${sealed.toString('base64')}`, key_version: 1 } },
  };
}

function decrypt(key: Buffer, ciphertext: string): TransitAnswer {
  const [, text] = /^vault:v1:([A-Za-z0-9+/]+={0,2})$/.exec(ciphertext) ?? [];
  if (text === undefined) return refused(400, 'invalid ciphertext: no prefix');
  const sealed = Buffer.from(text, 'base64');
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12));
    decipher.setAuthTag(sealed.subarray(-16));
    const plaintext = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
    return { status: 200, body: { data: { plaintext: plaintext.toString('base64') } } };
  } catch {
    return refused(400, 'invalid ciphertext: unable to decrypt');
  }
}

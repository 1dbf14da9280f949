import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { beforeEach, expect } from 'vitest';
import { defined } from '../contract/defined.ts';
import type { Claims } from '../contract/tokens.ts';
import { BearerAuth } from '../http/bearer-auth.ts';
import { createHttpServer } from '../http/server.ts';
import { createLogger } from '../logs/logger.ts';
import { FakeClock } from './fake-clock.ts';

export const issuer = generateKeyPairSync('ed25519');
export const stranger = generateKeyPairSync('ed25519');
export const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
export const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
export const KID = 'kid-1';
export const pemOf = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }) as string;
export const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** The published keys; tests change them. */
export let published: Map<string, string>;

let findError: Error | undefined;

export let finds: string[];
export let revoked: Set<string>;
export let clock: FakeClock;
let app: FastifyInstance;

export async function build(
  audience: 'bunkms' | 'bundoc' = 'bundoc',
  write: (line: string) => void = () => undefined,
): Promise<FastifyInstance> {
  const logger = createLogger({ service: 'bundoc', level: 'info', destination: { write } });
  const server = createHttpServer({ logger, bodyBytesMax: 100 });
  const auth = new BearerAuth({
    audience,
    clock,
    isRevoked: ({ jti }) => revoked.has(jti),
    keys: {
      find: async (kid) => {
        finds.push(kid);
        if (findError !== undefined) throw findError;
        return published.get(kid);
      },
      isCurrent: (kid) => published.has(kid),
    },
  });
  await auth.register(server);
  server.get('/me', async (request) => auth.authenticate(request));
  return server;
}

/** Lookups of keys throw that error from now on. */
export function failLookups(error: Error | undefined): void {
  findError = error;
}

export const JTI = '3f8f1c1e-9f0b-4b52-8a8c-0b8a6f6f2d11';

export function claims(changes: Record<string, unknown> = {}): Record<string, unknown> {
  const iat = Math.floor(clock.now() / 1000);
  const all: Record<string, unknown> = {
    iss: 'bunkms',
    aud: 'bundoc',
    sub: 'app',
    typ: 'client',
    scope: 'docs:read docs:write',
    projects: ['project-a'],
    jti: JTI,
    iat,
    exp: iat + 3_600,
    ...changes,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

export interface TokenOptions {
  readonly header?: unknown;
  readonly payload?: unknown;
  readonly signer?: (input: Buffer) => Buffer;
}

export const HEADER = { alg: 'EdDSA', typ: 'JWT', kid: KID };

export function token({ header = HEADER, payload = claims(), signer }: TokenOptions = {}): string {
  const input = `${encode(header)}.${encode(payload)}`;
  const signature = (signer ?? ((bytes) => sign(null, bytes, issuer.privateKey)))(Buffer.from(input));
  return `${input}.${signature.toString('base64url')}`;
}

export async function ask(authorization: string | undefined, server: FastifyInstance = app) {
  const answer = await server.inject({
    url: '/me',
    headers: defined({ authorization }),
  });
  return {
    status: answer.statusCode,
    body: answer.json() as Record<string, unknown>,
    headers: answer.headers,
  };
}

/** Every refusal, without its request id. */
const REFUSAL = {
  type: 'about:blank',
  title: 'A valid bearer token is required',
  status: 401,
  code: 'unauthenticated',
  request_id: expect.any(String),
};

const isBearer = (authorization: string | undefined) => /^bearer\b/i.test(authorization ?? '');

/** The body of a refusal. Only a request without a bearer token gets a detail: it says nothing of a token. */
export function refusalOf(authorization: string | undefined) {
  const detail = 'the header must be: Authorization: Bearer <token>';
  return isBearer(authorization) ? REFUSAL : { ...REFUSAL, detail };
}

export async function expectRefused(authorization: string | undefined): Promise<void> {
  const { status, body, headers } = await ask(authorization);
  expect(status).toBe(401);
  expect(body).toEqual(refusalOf(authorization));
  expect(headers['www-authenticate']).toBe(
    isBearer(authorization) ? 'Bearer error="invalid_token"' : 'Bearer',
  );
}

export async function expectAccepted(authorization: string): Promise<Claims> {
  const { status, body } = await ask(authorization);
  expect(body).toMatchObject({ jti: JTI });
  expect(status).toBe(200);
  return body as unknown as Claims;
}

/** Call it in a file: each test has an app that authenticates tokens, and the published keys. */
export function useBearerAuth(): void {
  beforeEach(async () => {
    published = new Map([[KID, pemOf(issuer.publicKey)]]);
    findError = undefined;
    finds = [];
    revoked = new Set();
    clock = new FakeClock();
    app = await build();
    return () => app.close();
  });
}

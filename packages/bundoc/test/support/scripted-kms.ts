import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { afterEach } from 'vitest';
import { KmsClient, type KmsClientOptions } from '../../src/kms/client.ts';

export type Script = (request: IncomingMessage, response: ServerResponse, call: number) => void;
/** A request that the server got. */
interface Seen {
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly receipts: string | string[] | undefined;
  readonly body: string;
}

export const cleanups: (() => Promise<void>)[] = [];

/** A server with scripted answers, and a client of it. */
export async function startScripted(
  script: Script,
  options: Pick<KmsClientOptions, 'streamSilentMs' | 'receipts' | 'skew' | 'deadlineMs' | 'outside'> = {},
) {
  let calls = 0;
  const seen: Seen[] = [];
  const server = createServer((request, response) => {
    const call = ++calls;
    let body = '';
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on('end', () => {
      seen.push({
        method: String(request.method),
        url: String(request.url),
        authorization: request.headers.authorization,
        receipts: request.headers[RECEIPT_HEADER],
        body,
      });
      script(request, response, call);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const lines: string[] = [];
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString());
      done();
    },
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new KmsClient({
    url,
    token: () => 'the-service-token',
    clock: systemClock,
    logger: createLogger({ service: 'bundoc', level: 'debug', destination }),
    random: () => 0.1,
    ...options,
  });
  cleanups.push(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { client, url, seen, lines, calls: () => calls };
}

export const dek = createSecretKey(randomBytes(32));

export const exported = (overrides: Record<string, unknown> = {}) => ({
  key_material_b64: dek.export().toString('base64'),
  algorithm: 'AES-256-GCM',
  name: 'p-dek',
  key_id: randomUUID(),
  version: 1,
  kcv: keyCheckValue(dek),
  wrapped_b64: randomBytes(69).toString('base64'),
  lease: { id: randomUUID(), ttl_ms: 900_000 },
  audit: { seq: 1, hash: 'ab' },
  ...overrides,
});

export const ACTING = { storage: randomUUID(), generation: randomUUID() };
export const OTHER = randomUUID();
export const MOVE = randomUUID();

export function answer(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

export const problem = (
  response: ServerResponse,
  status: number,
  code: string,
  headers?: Record<string, string>,
) => answer(response, status, { code }, headers);

/** Call it in a file: the servers and clients of a test end with it. */
export function useScriptedKms(): void {
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0)) await cleanup();
  });
}

import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { Agent, type RequestOptions, request } from 'node:https';
import { connect } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CertifiedKey } from '../src/cli/authority.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { TestPki } from './support/pki.ts';

const SERVER_NAMES = ['127.0.0.1', 'bunkms-internal'];

interface Outcome {
  readonly outcome: number | string;
  readonly shown?: string;
  readonly isReused?: true;
}

/** Sends one request. @returns its status or error code, and the certificate of a new connection. */
function ask(url: string, path: string, tls: RequestOptions): Promise<Outcome> {
  return new Promise((resolve) => {
    const sent = request(new URL(path, url), { agent: false, ...tls }, (response) => {
      const shown = (response.socket as TLSSocket).getPeerX509Certificate()?.fingerprint256;
      const outcome = {
        outcome: Number(response.statusCode),
        ...(sent.reusedSocket ? { isReused: true as const } : shown && { shown }),
      };
      response.resume().on('end', () => resolve(outcome));
    });
    sent.on('error', (error: NodeJS.ErrnoException) => resolve({ outcome: String(error.code) }));
    sent.end();
  });
}

const fingerprintOf = ({ cert }: CertifiedKey) => new X509Certificate(cert).fingerprint256;

async function refusedCount(kms: TestKms, listener: string, tls: RequestOptions): Promise<number> {
  const { internalUrl } = kms.running;
  const text = await new Promise<string>((resolve, reject) => {
    request(new URL('/metrics', internalUrl), { agent: false, ...tls }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve(body));
    })
      .on('error', reject)
      .end();
  });
  return Number(
    new RegExp(`bunkms_tls_refused_connections_total\\{listener="${listener}"\\} (\\d+)`).exec(text)?.[1] ??
      0,
  );
}

describe('the internal listener with mutual TLS', () => {
  let pki: TestPki;
  let kms: TestKms;
  let good: RequestOptions;

  beforeAll(async () => {
    pki = await TestPki.make();
    const { ca: _, ...apiTls } = pki.write('server', await pki.issue({ names: SERVER_NAMES }));
    kms = await startKms({
      config: {
        tls: apiTls,
        internalTls: pki.write('server-internal', await pki.issue({ names: SERVER_NAMES })),
        internalClientNames: ['bundoc'],
      },
    });
    good = { ...(await pki.issue()), ca: pki.authority.cert };
  });
  afterAll(async () => {
    await kms[Symbol.asyncDispose]();
    pki[Symbol.dispose]();
  });

  it('accepts a client of the authority, with TLS 1.3', async () => {
    expect(kms.running.internalUrl).toMatch(/^https:/);
    expect(await ask(kms.running.internalUrl, '/ready', good)).toMatchObject({ outcome: 200 });
  });

  it('requires no certificate from clients of the API listener', async () => {
    expect(await ask(kms.running.apiUrl, '/ready', { ca: pki.authority.cert })).toMatchObject({
      outcome: 200,
    });
    const old = { ca: pki.authority.cert, maxVersion: 'TLSv1.2' } as const;
    expect((await ask(kms.running.apiUrl, '/ready', old)).outcome).toBeTypeOf('string');
  });

  it('presents a certificate that clients refuse under another name', async () => {
    expect(await ask(kms.running.internalUrl, '/ready', { ...good, servername: 'elsewhere' })).toEqual({
      outcome: 'ERR_TLS_CERT_ALTNAME_INVALID',
    });
  });

  it.each<[string, () => Promise<RequestOptions>]>([
    ['no certificate', async () => ({})],
    ['a certificate of another authority', async () => pki.issue({ by: await TestPki.newAuthority() })],
    ['a self-signed certificate', () => TestPki.newAuthority()],
    ['an expired certificate', () => pki.issue({ from: -2, to: -1 })],
    ['a certificate that is not valid yet', () => pki.issue({ from: 1, to: 2 })],
    ['a certificate of another name', () => pki.issue({ names: ['thief'] })],
    ['TLS 1.2', async () => ({ ...good, maxVersion: 'TLSv1.2' as const })],
  ])('refuses %s before any route runs, and counts it', async (_what, make) => {
    const before = await refusedCount(kms, 'internal', good);
    const lines = kms.logs.length;
    const answer = await ask(kms.running.internalUrl, '/v1/export/p-dek', {
      ca: pki.authority.cert,
      ...(await make()),
    });
    expect(answer.outcome).toBeTypeOf('string');
    await expect.poll(() => refusedCount(kms, 'internal', good)).toBe(before + 1);
    expect(kms.logs.slice(lines).filter((line) => line.includes('/v1/export'))).toEqual([]);
    expect((await kms.records()).filter(({ action }) => action === 'key.export')).toEqual([]);
  });

  it('tells a client that speaks plain HTTP to the API listener to speak HTTPS', async () => {
    const answer = await fetch(kms.running.apiUrl.replace('https:', 'http:'));
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({
      code: 'invalid_request',
      detail: expect.stringContaining('https://'),
    });
  });

  it('answers plain HTTP to the internal listener with nothing', async () => {
    const socket = connect(Number(new URL(kms.running.internalUrl).port), '127.0.0.1');
    let received = '';
    socket.on('data', (chunk) => {
      received += String(chunk);
    });
    socket.on('error', () => undefined);
    socket.write('GET /ready HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(socket, 'close');
    expect(received).not.toContain('HTTP');
  });

  it('logs few lines for many refusals', async () => {
    for (let i = 0; i < 20; i++) await ask(kms.running.internalUrl, '/ready', { ca: pki.authority.cert });
    const lines = kms.logs.filter((line) => line.includes('TLS refused connections'));
    expect(lines.length).toBeLessThan(5);
    expect(lines[0]).toContain('"reason":"');
  });
});

describe('certificate files that change while the service runs', () => {
  it('are used for new connections, while established ones continue', async () => {
    using pki = await TestPki.make();
    const first = await pki.issue({ names: SERVER_NAMES });
    await using kms = await startKms({ config: { internalTls: pki.write('server', first) } });
    const client = { ...(await pki.issue()), ca: pki.authority.cert };
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const { internalUrl } = kms.running;
    const standing = () => ask(internalUrl, '/health', { ...client, agent });
    expect((await standing()).shown).toBe(fingerprintOf(first));

    const second = await pki.issue({ names: SERVER_NAMES });
    pki.write('server', second);
    await expect
      .poll(async () => (await ask(internalUrl, '/health', client)).shown)
      .toBe(fingerprintOf(second));
    // A reused connection gets no certificate.
    expect(await standing()).toEqual({ outcome: 200, isReused: true });
    agent.destroy();
  });

  it('change the authority that clients need', async () => {
    using pki = await TestPki.make();
    const pair = await pki.issue({ names: SERVER_NAMES });
    await using kms = await startKms({ config: { internalTls: pki.write('server', pair) } });
    const next = await TestPki.newAuthority();
    const client = { ...(await pki.issue({ by: next })), ca: pki.authority.cert };
    expect((await ask(kms.running.internalUrl, '/health', client)).outcome).toBeTypeOf('string');
    pki.write('server', pair, next);
    await expect.poll(async () => (await ask(kms.running.internalUrl, '/health', client)).outcome).toBe(200);
  });

  it('leave the last valid ones in use when they are invalid, with one error in the log', async () => {
    using pki = await TestPki.make();
    const first = await pki.issue({ names: SERVER_NAMES });
    const files = pki.write('server', first);
    await using kms = await startKms({ config: { internalTls: files } });
    const client = { ...(await pki.issue()), ca: pki.authority.cert };
    const errors = () => kms.logs.filter((line) => line.includes('keeping the previous one'));

    writeFileSync(String(files.key?.path), 'no key');
    await expect.poll(errors).toHaveLength(1);
    expect(await ask(kms.running.internalUrl, '/health', client)).toEqual({
      outcome: 200,
      shown: fingerprintOf(first),
    });
    const second = await pki.issue({ names: SERVER_NAMES });
    pki.write('server', second);
    await expect
      .poll(async () => (await ask(kms.running.internalUrl, '/health', client)).shown)
      .toBe(fingerprintOf(second));
    expect(errors()).toHaveLength(1);
  });
});

describe('a start with certificate files', () => {
  it('is refused when they are missing, invalid, or do not belong together, and names each variable', async () => {
    using pki = await TestPki.make();
    const files = pki.write('server', { ...(await pki.issue()), key: (await pki.issue()).key });
    const dataDir = `${pki.folder}/data`;
    await expect(startKms({ dataDir, config: { internalTls: files } })).rejects.toThrow(
      /KEY_FILE: is not the key of/,
    );
    writeFileSync(String(files.cert?.path), 'no certificate');
    const absent = { ...files, key: { variable: 'KEY_FILE', path: '/nowhere/key.pem' } };
    await expect(startKms({ dataDir, config: { internalTls: absent } })).rejects.toThrow(
      /KEY_FILE: the file \S+ cannot be read \(ENOENT\)[\s\S]*CERT_FILE: the file \S+ holds no certificate/,
    );
  });
});

import { generateKeyPairSync } from 'node:crypto';
import type { Jwks } from '@bundoc/shared/contract/tokens';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { REFETCH_AFTER_MS, TokenKeys } from './token-keys.ts';

function jwk(kid: string): Jwks['keys'][number] {
  const { x } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' });
  return { kty: 'OKP', crv: 'Ed25519', use: 'sig', alg: 'EdDSA', kid, x: String(x) };
}

function start() {
  const clock = new FakeClock();
  const server = { jwks: { keys: [jwk('one')] }, up: true, asked: 0 };
  const keys = new TokenKeys({
    clock,
    fetchJwks: async () => {
      server.asked++;
      if (!server.up) throw new Error('down');
      return server.jwks;
    },
  });
  return { clock, server, keys };
}

describe('TokenKeys', () => {
  it('returns the PEM of a known kid, with one request for many callers', async () => {
    const { server, keys } = start();
    const pems = await Promise.all(Array.from({ length: 20 }, () => keys.find('one')));
    expect(pems[0]).toContain('BEGIN PUBLIC KEY');
    expect(server.asked).toBe(1);
  });

  it('requests an unknown kid at most every ten seconds, however many are invented', async () => {
    const { clock, server, keys } = start();
    await keys.find('one');
    for (let n = 0; n < 50; n++) expect(await keys.find(`invented-${n}`)).toBeUndefined();
    expect(server.asked).toBe(1);
    server.jwks = { keys: [jwk('one'), jwk('two')] };
    clock.advance(REFETCH_AFTER_MS);
    expect(await keys.find('two')).toBeDefined();
    expect(server.asked).toBe(2);
  });

  it('uses its last copy while BunKMS is down, and reports an unknown kid', async () => {
    const { clock, server, keys } = start();
    await keys.find('one');
    server.up = false;
    clock.advance(REFETCH_AFTER_MS);
    expect(await keys.find('one')).toBeDefined();
    await expect(keys.find('two')).rejects.toMatchObject({ code: 'kms_unavailable' });
    server.up = true;
    clock.advance(1_000);
    expect(await keys.find('two')).toBeUndefined();
  });

  it('accepts no token before BunKMS was reachable, and recovers without help', async () => {
    const { clock, server, keys } = start();
    server.up = false;
    await expect(keys.find('one')).rejects.toMatchObject({ code: 'kms_unavailable' });
    await expect(keys.find('one')).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(server.asked).toBe(1);
    server.up = true;
    clock.advance(1_000);
    expect(await keys.find('one')).toBeDefined();
  });

  it('stops accepting a withdrawn key', async () => {
    const { clock, server, keys } = start();
    await keys.find('one');
    expect(keys.isCurrent('one')).toBe(true);
    server.jwks = { keys: [jwk('two')] };
    clock.advance(REFETCH_AFTER_MS);
    await keys.refresh();
    expect(keys.isCurrent('one')).toBe(false);
  });
});

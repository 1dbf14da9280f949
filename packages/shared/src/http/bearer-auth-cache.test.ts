import { describe, expect, it } from 'vitest';
import {
  ask,
  build,
  claims,
  clock,
  encode,
  expectAccepted,
  expectRefused,
  KID,
  published,
  token,
  useBearerAuth,
} from '../testing/bearer-tokens.ts';

useBearerAuth();

describe('a token whose verification is cached', () => {
  it('is refused once it expires', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    clock.advance(3_599_000);
    await expectAccepted(authorization);
    clock.advance(1_000);
    await expectRefused(authorization);
  });

  it('is refused while its key is withdrawn, and accepted when the key is back', async () => {
    const authorization = `Bearer ${token()}`;
    await expectAccepted(authorization);
    const pem = published.get(KID) ?? '';
    published.delete(KID);
    await expectRefused(authorization);
    published.set(KID, pem);
    await expectAccepted(authorization);
  });

  it('is refused before its nbf and accepted from then on, by the same clock', async () => {
    const nbf = Math.floor(clock.now() / 1000) + 120;
    const authorization = `Bearer ${token({ payload: claims({ nbf }) })}`;
    await expectRefused(authorization);
    clock.advance(60_000);
    await expectAccepted(authorization);
    clock.setWall(clock.now() - 120_000);
    await expectRefused(authorization);
  });

  it('does not validate a token with the same signature and other claims', async () => {
    const good = token();
    await expectAccepted(`Bearer ${good}`);
    const [header, , signature] = good.split('.');
    await expectRefused(`Bearer ${header}.${encode(claims({ projects: ['*'] }))}.${signature}`);
  });

  it('has no second spelling: unused bits at the end of the signature must be zero', async () => {
    const good = token();
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const last = alphabet.indexOf(good.at(-1) ?? '');
    for (let bits = 1; bits < 16; bits++) {
      const other = good.slice(0, -1) + alphabet[last ^ bits];
      expect(Buffer.from(other.split('.')[2] ?? '', 'base64url')).toEqual(
        Buffer.from(good.split('.')[2] ?? '', 'base64url'),
      );
      await expectRefused(`Bearer ${other}`);
    }
    await expectAccepted(`Bearer ${good}`);
  });

  it('is valid for its own service only', async () => {
    const kms = await build('bunkms');
    const payload = claims({ aud: 'bunkms' });
    expect((await ask(`Bearer ${token({ payload })}`, kms)).status).toBe(200);
    expect((await ask(`Bearer ${token()}`, kms)).status).toBe(401);
    await kms.close();
  });
});

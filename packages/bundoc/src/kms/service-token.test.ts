import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { ServiceToken } from './service-token.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) {
    chmodSync(folder, 0o700);
    rmSync(folder, { recursive: true });
  }
});

const clockStart = new FakeClock().now() / 1000;
/** Unsigned, because only BunKMS checks signatures. */
const tokenOf = (fromS: number, toS: number, name: string) =>
  `e30.${Buffer.from(JSON.stringify({ iat: clockStart + fromS, exp: clockStart + toS, name })).toString('base64url')}.x`;

function start(content = tokenOf(0, 1000, 'first')) {
  const logged: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-token-'));
  folders.push(folder);
  const path = join(folder, 'kms-token');
  writeFileSync(path, `${content}\n`, { mode: 0o600 });
  const clock = new FakeClock();
  const destination = { write: (line: string) => void logged.push(line) };
  const token = new ServiceToken({
    path,
    clock,
    random: () => 1,
    logger: createLogger({ service: 'bundoc', level: 'info', destination }),
  });
  return { folder, path, clock, token, logged };
}

describe('ServiceToken', () => {
  it('is read from its file, and again when the file changes', () => {
    const { path, token } = start();
    expect(token.current()).toBe(tokenOf(0, 1000, 'first'));
    writeFileSync(path, tokenOf(0, 2000, 'second'));
    expect(token.current()).toBe(tokenOf(0, 2000, 'second'));
  });

  it('warns at the start when others than the owner may read its file', () => {
    const { path, clock, logged } = start();
    expect(logged).toEqual([]);
    chmodSync(path, 0o640);
    const destination = { write: (line: string) => void logged.push(line) };
    new ServiceToken({
      path,
      clock,
      logger: createLogger({ service: 'bundoc', level: 'info', destination }),
    });
    expect(logged).toEqual([
      expect.stringContaining('BUNDOC_KMS_TOKEN_FILE: the file is open to its group or to others'),
    ]);
  });

  it('names the missing file at the start, and the command that makes it', () => {
    const { folder, clock } = start();
    const path = join(folder, 'none');
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    expect(() => new ServiceToken({ path, clock, logger })).toThrow(
      `BUNDOC_KMS_TOKEN_FILE: the file ${path} cannot be read (ENOENT); make it with: bunkms init --service-token ${path}`,
    );
  });

  it.each([
    ['client', 'bundoc', 'a client token for Bundoc'],
    ['service', 'bundoc', 'a service token for Bundoc'],
    ['client', 'bunkms', 'a client token for BunKMS'],
  ])('refuses a %s token for %s at the start, and names the token that is needed', (typ, aud, kind) => {
    const claims = Buffer.from(JSON.stringify({ typ, aud })).toString('base64url');
    expect(() => start(`e30.${claims}.x`)).toThrow(
      new RegExp(
        `BUNDOC_KMS_TOKEN_FILE: the file \\S+ has ${kind}, and a service token for BunKMS is needed; make it with: bunkms init --service-token `,
      ),
    );
  });

  it.each(['word', 'two words', 'e30.e30', '{"token":"e30.e30.x"}', 'a\nb', '\u0007', 'Bearer e30.e30.x'])(
    'refuses a file with something else in it, by its name and without the content: %j',
    (content) => {
      expect(() => start(content)).toThrow(
        /BUNDOC_KMS_TOKEN_FILE: the file \S+kms-token has no token in it; make it with: bunkms init \S+ \S+kms-token$/,
      );
    },
  );

  it('keeps the last token when the file gets a client token while the service runs', () => {
    const { path, token, logged } = start();
    const claims = Buffer.from(JSON.stringify({ typ: 'client', aud: 'bundoc' })).toString('base64url');
    writeFileSync(path, `e30.${claims}.x`);
    expect(token.current()).toBe(tokenOf(0, 1000, 'first'));
    expect(logged.at(-1)).toContain(
      'has a client token for Bundoc, and a service token for BunKMS is needed',
    );
  });

  it('keeps the last token when the file is missing', () => {
    const { path, token } = start();
    rmSync(path);
    expect(token.current()).toBe(tokenOf(0, 1000, 'first'));
  });

  it('keeps the last token while the file is empty, and takes the next one', () => {
    const { path, token } = start();
    writeFileSync(path, '');
    expect(token.current()).toBe(tokenOf(0, 1000, 'first'));
    writeFileSync(path, tokenOf(0, 2000, 'second'));
    expect(token.current()).toBe(tokenOf(0, 2000, 'second'));
  });

  it('survives an inaccessible path, and is still renewed', async () => {
    const { path, clock, token } = start();
    rmSync(path);
    symlinkSync(path, path);
    clock.advance(600_000);
    await token.renewIfDue(async () => tokenOf(600, 1600, 'renewed'));
    expect(token.current()).toBe(tokenOf(600, 1600, 'renewed'));
  });

  it('is renewed at half its lifetime, not before, and a restart finds the new one', async () => {
    const { folder, path, clock, token } = start();
    let renewals = 0;
    const renew = async () => {
      renewals++;
      return tokenOf(500, 1500, 'renewed');
    };
    clock.advance(499_999);
    await token.renewIfDue(renew);
    expect(renewals).toBe(0);
    clock.advance(1);
    await token.renewIfDue(renew);
    await token.renewIfDue(renew);
    expect(renewals).toBe(1);
    expect(token.current()).toBe(tokenOf(500, 1500, 'renewed'));
    expect(readFileSync(path, 'utf8').trim()).toBe(tokenOf(500, 1500, 'renewed'));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(['kms-token']);
  });

  it('a service token that an operator replaces during a renewal is kept, in the file and in memory', async () => {
    const replaced = tokenOf(600, 5000, 'of another family');
    for (const isReadMeanwhile of [false, true]) {
      const { folder, path, clock, token, logged } = start();
      clock.advance(600_000);
      await token.renewIfDue(async () => {
        writeFileSync(path, `${replaced}\n`);
        if (isReadMeanwhile) token.current();
        return tokenOf(600, 1600, 'renewed');
      });
      expect([token.current(), readFileSync(path, 'utf8').trim()]).toEqual([replaced, replaced]);
      expect(readdirSync(folder)).toEqual(['kms-token']);
      expect(logged.at(-1)).toContain('the renewed token is discarded');
    }
  });

  it('does not replace an empty file, which a command may be about to fill, and uses the token from then on', async () => {
    const { folder, path, clock, token } = start();
    clock.advance(600_000);
    const filling = openSync(path, 'w');
    await token.renewIfDue(async () => tokenOf(600, 1600, 'renewed'));
    expect([token.current(), readdirSync(folder)]).toEqual([tokenOf(600, 1600, 'renewed'), ['kms-token']]);
    writeSync(filling, tokenOf(600, 5000, 'of another family'));
    closeSync(filling);
    expect(token.current()).toBe(tokenOf(600, 5000, 'of another family'));
  });

  it('keeps the current token when the renewal fails, and retries', async () => {
    const { clock, token } = start();
    clock.advance(600_000);
    await token.renewIfDue(async () => {
      throw new Error('down');
    });
    expect(token.current()).toBe(tokenOf(0, 1000, 'first'));
    await token.renewIfDue(async () => tokenOf(600, 1600, 'renewed'));
    expect(token.current()).toBe(tokenOf(600, 1600, 'renewed'));
  });

  it('logs an error with a remedy when it has expired', async () => {
    const { clock, token, logged } = start();
    const refuse = async () => {
      throw new Error('401');
    };
    clock.advance(999_999);
    await token.renewIfDue(refuse);
    expect(logged.at(-1)).toMatch(/"level":"warn".*trying again/);
    clock.advance(1);
    await token.renewIfDue(refuse);
    expect(logged.at(-1)).toMatch(/"level":"error".*has expired.*bunkms token issue/);
  });

  it('is requested with growing pauses while it is refused', async () => {
    vi.useFakeTimers();
    try {
      const { clock, token } = start();
      clock.advance(600_000);
      let tries = 0;
      token.keepRenewed(async () => {
        tries++;
        throw new Error('down');
      });
      await vi.advanceTimersByTimeAsync(600_000);
      token.stop();
      // 1 + 2 + 4 + … + 32 seconds, then a minute each.
      expect(tries).toBe(6 + Math.floor((600 - 63) / 60));
    } finally {
      vi.useRealTimers();
    }
  });

  it('stays in memory when its folder does not exist', async () => {
    const { folder, clock, token } = start();
    rmSync(folder, { recursive: true });
    folders.splice(folders.indexOf(folder), 1);
    clock.advance(600_000);
    await token.renewIfDue(async () => tokenOf(600, 1600, 'renewed'));
    expect(token.current()).toBe(tokenOf(600, 1600, 'renewed'));
  });

  it('reports a configuration fault with the name of the variable when it is unreadable at the start', () => {
    const options = {
      path: '/nowhere/token',
      clock: new FakeClock(),
      logger: createLogger({ service: 'bundoc', level: 'silent' }),
    };
    expect(() => new ServiceToken(options)).toThrow(/BUNDOC_KMS_TOKEN_FILE/);
  });
});

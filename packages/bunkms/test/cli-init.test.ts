import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import {
  claimsOf,
  environment,
  expectFailure,
  folder,
  init,
  run,
  tokenFile,
  useCommandLine,
} from './support/command-line.ts';
import { bunkmsProcess } from './support/process.ts';

useCommandLine();

describe('`bunkms init`', () => {
  it('creates an installation once, however often and concurrently init runs', async () => {
    const initProcess = () =>
      bunkmsProcess(environment, 'init', '--create-kek', '--service-token', tokenFile);
    for (const finished of await Promise.all([initProcess(), initProcess(), initProcess()]))
      expect(finished).toMatchObject({ code: 0, stdout: '' });
    const kek = readFileSync(environment.BUNKMS_KEK_FILE, 'utf8');
    expect(Buffer.from(kek.trim(), 'base64')).toHaveLength(32);
    for (const path of [environment.BUNKMS_KEK_FILE, tokenFile])
      expect(statSync(path).mode & 0o777).toBe(0o600);
    const token = readFileSync(tokenFile, 'utf8').trim();
    expect(claimsOf(token)).toMatchObject({
      aud: 'bunkms',
      sub: 'bundoc',
      typ: 'service',
      scope: 'kms:create_key kms:export_key kms:read_key kms:rotate_key kms:shred_key',
      keys: ['*-dek'],
    });
    const stderr = `bunkms: nothing is missing in ${environment.BUNKMS_DATA_DIR}\n`;
    expect(await init()).toMatchObject({ code: 0, stdout: '', stderr });
    expect(readFileSync(environment.BUNKMS_KEK_FILE, 'utf8')).toBe(kek);
    expect(readFileSync(tokenFile, 'utf8').trim()).toBe(token);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  it('creates an authority and certificates once, even if init runs concurrently', async () => {
    const [authority, own] = [join(folder, 'authority'), join(folder, 'bunkms')];
    const withCertificates = () =>
      bunkmsProcess(
        environment,
        ...['init', '--create-kek', '--authority', authority],
        ...['--certificate', `${own}=bunkms-internal,127.0.0.1`],
      );
    for (const finished of await Promise.all([withCertificates(), withCertificates(), withCertificates()]))
      expect(finished).toMatchObject({ code: 0, stdout: '' });
    const pem = (file: string) => readFileSync(join(own, file));
    const cert = new X509Certificate(pem('cert.pem'));
    expect(cert.checkPrivateKey(createPrivateKey(pem('key.pem')))).toBe(true);
    expect(cert.verify(new X509Certificate(pem('ca.pem')).publicKey)).toBe(true);
    expect([cert.checkHost('bunkms-internal'), cert.checkIP('127.0.0.1')]).toEqual([
      'bunkms-internal',
      '127.0.0.1',
    ]);
    const before = pem('cert.pem');
    await withCertificates();
    expect(pem('cert.pem')).toEqual(before);

    expectFailure(
      await run('init', '--create-kek', '--authority', authority),
      2,
      /--authority and --certificate/,
    );
    expect((await run('init', '--authority', authority, '--certificate', own)).code).toBe(2);
  });

  it('replaces no certificate, key or authority that it did not make', async () => {
    const [authority, own] = [join(folder, 'authority'), join(folder, 'bunkms')];
    const args = ['init', '--authority', authority, '--certificate', `${own}=localhost`];
    await init();
    for (const [option, directory, file] of [
      ['--authority', authority, 'key.pem'],
      ['--authority', authority, 'cert.pem'],
      ['--certificate', own, 'key.pem'],
      ['--certificate', own, 'cert.pem'],
    ] as const) {
      const path = join(directory, file);
      mkdirSync(directory, { recursive: true });
      writeFileSync(path, 'of a public authority');
      expectFailure(await run(...args), 2, new RegExp(`${option}: ${path} was not made by this command`));
      expect(readFileSync(path, 'utf8')).toBe('of a public authority');
      rmSync(path);
    }
    expect((await run(...args)).code).toBe(0);
    // What a crash or a person has damaged is made again, where a file beside it shows whose it was.
    for (const path of [join(authority, 'key.pem'), join(own, 'key.pem'), join(own, 'cert.pem')]) {
      writeFileSync(path, 'damaged');
      expect((await run(...args)).code).toBe(0);
      expect(readFileSync(path, 'utf8')).toMatch(/^-----BEGIN /);
    }
  });

  it('replaces a service token that is no longer valid', async () => {
    await init();
    const token = readFileSync(tokenFile, 'utf8').trim();
    const { jti } = claimsOf(token);
    expect(await run('token', 'revoke', jti)).toMatchObject({
      code: 0,
      stdout: `revoked ${jti} with its renewals: BunKMS refuses them from now on, Bundoc once the event reaches it\n`,
    });
    await init();
    const second = readFileSync(tokenFile, 'utf8').trim();
    expect(second).not.toBe(token);
    for (const other of ['not.signed.here\n', '']) {
      writeFileSync(tokenFile, other);
      await init();
      expect(claimsOf(readFileSync(tokenFile, 'utf8').trim())).toMatchObject({ sub: 'bundoc' });
    }
  });

  it('replaces no file that has something other than a token, such as the KEK, and issues none', async () => {
    await init();
    const kek = readFileSync(environment.BUNKMS_KEK_FILE);
    const before = (await run('audit', 'head')).stdout;
    for (const [path, reason] of [
      [environment.BUNKMS_KEK_FILE, /has something other than a token, and stays as it is/],
      [folder, /is a folder: name a file in it/],
    ] as const)
      expectFailure(await run('init', '--service-token', path), 2, reason);
    expect(readFileSync(environment.BUNKMS_KEK_FILE)).toEqual(kek);
    expect((await run('audit', 'head')).stdout).toBe(before);
  });

  it('replaces a service token that may not shred, without revoking it', async () => {
    await init();
    const earlier = await run(
      ...['token', 'issue', '--typ', 'service', '--sub', 'bundoc', '--keys', '*-dek'],
      ...['--scope', 'kms:create_key kms:export_key kms:read_key kms:rotate_key'],
    );
    writeFileSync(tokenFile, earlier.stdout);
    expect((await init()).code).toBe(0);
    const replaced = readFileSync(tokenFile, 'utf8').trim();
    expect(claimsOf(replaced).scope).toContain('kms:shred_key');
    await init();
    expect(readFileSync(tokenFile, 'utf8').trim()).toBe(replaced);
    const { tokens } = JSON.parse((await run('token', 'list', '--json')).stdout);
    const { jti } = claimsOf(earlier.stdout);
    expect(tokens.find((one: { jti: string }) => one.jti === jti)).not.toHaveProperty('revoked_at');
  });

  it('never creates a new KEK for a store that has one', async () => {
    await init();
    rmSync(environment.BUNKMS_KEK_FILE);
    expectFailure(await init(), 1, /the KEK file is missing/);
    expect(existsSync(environment.BUNKMS_KEK_FILE)).toBe(false);
  });

  it('creates no store on its own, and lists every fault of the configuration', async () => {
    expectFailure(
      await run('status'),
      1,
      new RegExp(`no store in ${environment.BUNKMS_DATA_DIR} .*"bunkms init"`),
    );
    expect(existsSync(environment.BUNKMS_DATA_DIR)).toBe(false);
    expectFailure(
      await bunkms({ BUNKMS_PORT: 'x', BUNKMS_STORAGE: 'y' }, 'status'),
      2,
      /BUNKMS_PORT.*BUNKMS_STORAGE.*BUNKMS_KEK_FILE/,
    );
    for (const args of [
      ['token', 'revoke', 'nobody'],
      ['key', 'list'],
      ['key', 'rotate', 'a-dek'],
    ])
      expectFailure(await run(...args), 1, /"bunkms init"/);
  });
});

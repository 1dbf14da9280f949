import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  edit,
  environment,
  expectFailure,
  folder,
  init,
  run,
  useCommandLine,
} from './support/command-line.ts';
import { bunkmsProcess, healthcheck, startServer } from './support/process.ts';

useCommandLine();

describe('the command line', () => {
  it('checks the health of both listeners, with and without TLS', async () => {
    const [authority, own] = [join(folder, 'authority'), join(folder, 'bunkms')];
    await run('init', '--create-kek', '--authority', authority, '--certificate', `${own}=bunkms-internal`);
    const files = (prefix: string) => ({
      [`${prefix}TLS_CERT_FILE`]: join(own, 'cert.pem'),
      [`${prefix}TLS_KEY_FILE`]: join(own, 'key.pem'),
    });
    const withTls = {
      ...environment,
      ...files('BUNKMS_'),
      ...files('BUNKMS_INTERNAL_'),
      BUNKMS_INTERNAL_CLIENT_CA_FILE: join(own, 'ca.pem'),
    };
    for (const variables of [environment, withTls]) {
      await using server = await startServer(variables);
      const ports = {
        BUNKMS_PORT: new URL(server.apiUrl).port,
        BUNKMS_INTERNAL_PORT: new URL(server.internalUrl).port,
      };
      expect(await healthcheck({ ...variables, ...ports })).toBe(0);
      expect(await healthcheck({ ...variables, ...ports, BUNKMS_INTERNAL_PORT: '1' })).toBe(1);
    }
  });

  it('names the first broken record of the chain, and reports missing records that a receipt proves', async () => {
    await init();
    for (const sub of ['a', 'b', 'c'])
      await run('token', 'issue', '--typ', 'service', '--sub', sub, '--scope', 'kms:read_key');
    const head = JSON.parse((await run('audit', 'head', '--json')).stdout);
    const receipt = (await run('audit', 'head')).stdout.trim();
    expect(receipt).toBe(`${head.seq}:${head.hash}`);
    const earlier = (await run('audit', 'verify', '--receipt', receipt, '--json')).stdout;
    expect(JSON.parse(earlier)).toMatchObject({
      intact: true,
      head,
      receipts: [{ seq: head.seq, action: 'token.issue', outcome: 'allowed' }],
    });
    expect((await run('audit', 'verify', '--receipt', receipt)).stdout).toMatch(
      new RegExp(
        `^the chain has the record of the receipt: ${head.seq}  \\S+Z  CRITICAL  token.issue  allowed`,
      ),
    );
    // Remove the row too: without its record it would be detected.
    edit(`DELETE FROM audit WHERE seq = ${head.seq}; DELETE FROM tokens WHERE sub = 'c'`);
    const before = (await run('audit', 'head')).stdout.trim();
    expect((await run('audit', 'verify', '--receipt', before)).code).toBe(0);
    for (const receipts of [
      ['--receipt', before, '--receipt', receipt],
      ['--receipt', receipt, '--receipt', before],
    ])
      expectFailure(
        await run('audit', 'verify', ...receipts),
        1,
        new RegExp(
          `chain ends with record ${head.seq - 1}, before record ${head.seq} of the receipt: .* lost records`,
        ),
      );
    const foreign = `1:${'ab'.repeat(32)}`;
    expectFailure(
      await run('audit', 'verify', '--receipt', foreign),
      1,
      /broken, or the receipt is of another installation or was changed: record 1 is not the record/,
    );
    edit(`UPDATE audit SET detail = 'no json' WHERE seq = 4`);
    expectFailure(await run('audit', 'verify'), 1, /broken: record 4 is changed/);
    edit(`UPDATE audit SET actor = 'somebody' WHERE seq = 3`);
    expectFailure(await run('audit', 'verify', '--receipt', before), 1, /broken: record 3 is changed/);
    edit('DELETE FROM audit WHERE seq = 2');
    const found = await run('audit', 'verify', '--json');
    expect([found.code, JSON.parse(found.stdout)]).toEqual([
      1,
      { intact: false, fault: { seq: 2, reason: 'missing' } },
    ]);
  });

  it('reports that it is sealed, and then changes nothing', async () => {
    await init();
    writeFileSync(environment.BUNKMS_KEK_FILE, `${'ab'.repeat(32)}\n`);
    for (const args of [
      ['token', 'issue', '--typ', 'service', '--sub', 'x', '--scope', 'kms:admin'],
      ['audit', 'verify'],
      ['key', 'rotate', 'a-dek'],
      ['init'],
    ])
      expectFailure(
        await run(...args),
        1,
        /bunkms: sealed: the ring lacks the KEK .*make sure that .*BUNKMS_KEK_FILE/,
      );
    const status = await run('status');
    expect(status.code).toBe(1);
    expect(status.stdout).toContain('status: sealed');
    // It must not report the KEK of the ring as that of the store.
    expect(status.stdout).not.toContain('current_kek');
    expect(status.stdout).toMatch(/^known_keks: [0-9a-f]{16}\nring_keks: [0-9a-f]{16}$/m);
  });

  it.each<[string[], RegExp]>([
    [['token', 'issue'], /required option/],
    [['token', 'issue', '--typ', 'root', '--sub', 'x', '--scope', 'kms:admin'], /--typ/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'kms:export_key'], /only service tokens/],
    [['token', 'issue', '--typ', 'client', '--sub', 'x', '--scope', 'docs:read', '--ttl', 'soon'], /ttl/],
    [['token', 'revoke'], /missing required argument/],
    [['audit', 'verify', '--receipt', 'x'], /receipt/],
    [['audit', 'verify', '--receipt', '1:ab'], /64 hex digits/],
    [['key', 'rotate'], /missing required argument/],
    [['key', 'rotate', 'NO-name'], /must be 1 to 128/],
    [['key', 'show', 'a/b'], /must be 1 to 128/],
    [['audit', 'list', '--from', 'yesterday'], /a time such as/],
    [['audit', 'list', '--severity', 'low'], /Allowed choices are INFO, CRITICAL/],
    [['audit', 'list', '--limit', '0'], /give a whole number from 1 to 10000/],
    [['frobnicate'], /unknown command/],
    [['status', '--loud'], /unknown option/],
  ])('treats %j as a usage error: exit code 2', async (args, message) => {
    expectFailure(await run(...args), 2, message);
  });

  it('exits as a process with the exit code of the command', async () => {
    expectFailure(await bunkmsProcess(environment, 'frobnicate'), 2, /unknown command/);
    expectFailure(await bunkmsProcess(environment, 'status'), 1, /"bunkms init"/);
    await init();
    expect(await bunkmsProcess(environment, 'status', '--json')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^{"status":"unsealed".*}\n$/),
      stderr: '',
    });
  });
});

import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bundocClient } from './support/client.ts';
import { describeWithDocker, docker } from './support/docker.ts';
import { type Stack, startStack } from './support/stack.ts';

describeWithDocker('the compose project with a KEK of one’s own', () => {
  let directory: string;
  let stack: Stack;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bundoc-kek-'));
    const kekFile = join(directory, 'kek');
    writeFileSync(kekFile, `${randomBytes(32).toString('base64')}\n`);
    // Compose keeps owner and mode of the host's file, and the services run as uid 1000.
    if (process.getuid?.() === 0) chownSync(kekFile, 1000, 1000);
    chmodSync(kekFile, process.getuid?.() === 0 || process.getuid?.() === 1000 ? 0o400 : 0o444);
    stack = await startStack({
      overrides: ['docker-compose.secrets.yml'],
      env: { BUNKMS_KEK_FILE: kekFile },
    });
  });
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  it('stores and reads back a document', async () => {
    const client = await bundocClient(stack, 'project-a');
    expect(await client.put('project-a', 'notes', 'first', '{"n":1}')).toMatchObject({ status: 201 });
    expect(await client.get('project-a', 'notes', 'first')).toMatchObject({ status: 200 });
  });

  it('makes no KEK, has no volume for one, and shows the secret to BunKMS alone', async () => {
    const volumes = await docker([
      ...['volume', 'ls', '--format', '{{.Name}}', '--filter'],
      `label=com.docker.compose.project=${stack.project}`,
    ]);
    expect(volumes.split('\n').sort()).toEqual(
      ['authority', 'bundoc-data', 'bundoc-tls', 'bunkms-tls', 'kms-data', 'kms-token'].map(
        (name) => `${stack.project}_${name}`,
      ),
    );
    expect(await stack.exec('bunkms', 'sh', '-c', 'ls /run/secrets')).toBe('bunkms-kek');
    await expect(stack.exec('bundoc', 'ls', '/run/secrets')).rejects.toThrow();
  });
});

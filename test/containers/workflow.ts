import { execFile } from 'node:child_process';
import { createDecipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { auditPageSchema } from '@bundoc/shared/contract/audit';
import { beforeAll, expect, it } from 'vitest';
import { ask, type BundocClient, bundocClient } from './support/client.ts';
import { docker, dockerBytes, root } from './support/docker.ts';
import { parseFindings, probeCommand } from './support/probe.ts';
import { eventually, type Stack } from './support/stack.ts';

const run = promisify(execFile);

/** Words that no volume or log may contain: a collection, an id, a field and a value. */
const PLANTED = {
  collection: 'plantedcollection',
  id: 'plantedid',
  field: 'plantedfield',
  value: 'plantedvalue',
};
const BODY = `{"${PLANTED.field}": "${PLANTED.value}", "big":12345678901234567890,  "price": 1.10}`;

/** What a user and an operator of a running project do, from its first document to a restart. */
export function works(started: () => Stack): void {
  let stack: Stack;
  let client: BundocClient;

  beforeAll(async () => {
    stack = started();
    client = await bundocClient(stack, 'project-a');
    const stored = await client.put('project-a', PLANTED.collection, PLANTED.id, BODY);
    expect(stored).toMatchObject({ status: 201 });
  });

  /** Sends a request to the internal listener from the network of Bundoc. */
  const exportKey = async (token: string) => {
    const targets = [{ host: 'bunkms-internal', port: 8082 }];
    const [finding] = parseFindings(
      await stack.exec(
        'bundoc',
        ...probeCommand({
          path: '/v1/export/project-a-dek',
          token,
          targets,
          pems: await stack.clientPems(),
        }),
      ),
    );
    return finding!;
  };
  const serviceToken = () => stack.exec('bundoc', 'cat', '/var/lib/kms-token/token');
  const auditOf = async (query: string) => {
    const token = await stack.token('--typ', 'service', '--sub', 'auditor', '--scope', 'kms:audit');
    const answer = await ask(`${await stack.url('bunkms')}/v1/audit?${query}`, {
      token,
      ca: await stack.ca(),
    });
    return auditPageSchema.parse(JSON.parse(answer.text)).records;
  };

  it('returns a document as it was sent', async () => {
    const answer = await client.get('project-a', PLANTED.collection, PLANTED.id);
    expect(answer.status).toBe(200);
    expect(answer.text).toContain(BODY.slice(1, -1));
  });

  it('has no planted word on a volume or in a log', async () => {
    const volumes = await Promise.all([
      dockerBytes(['cp', `${stack.container('bundoc')}:/var/lib/bundoc`, '-']),
      dockerBytes(['cp', `${stack.container('bunkms')}:/var/lib/bunkms`, '-']),
    ]);
    // The search finds plaintext names, so it works.
    expect(volumes[0].includes('projects/project-a/docs/')).toBe(true);
    expect(volumes[1].includes('project-a-dek')).toBe(true);
    const places = [...volumes, Buffer.from(await stack.compose('logs', '--no-color'))];
    for (const word of [...Object.values(PLANTED), client.token])
      for (const form of [
        word,
        Buffer.from(word).toString('hex'),
        Buffer.from(word).toString('base64').slice(0, -4),
      ])
        expect(places.map((place) => place.includes(form))).toEqual([false, false, false]);
  });

  it('keeps the document as nonce, ciphertext and tag under the exported key', async () => {
    // The file is written in the background after the commit.
    const files = await eventually(() =>
      stack.exec(
        'bundoc',
        'sh',
        '-c',
        'for file in /var/lib/bundoc/projects/project-a/docs/*; do test -s $file && echo $file; done',
      ),
    );
    expect(files).toMatch(/^\S+\/docs\/[0-9a-f]{32}$/);
    const name = files.slice(files.lastIndexOf('/') + 1);
    const sealed = Buffer.from(
      await stack.exec('bundoc', 'node', '-p', `fs.readFileSync('${files}', 'base64')`),
      'base64',
    );

    const { key_material_b64 } = JSON.parse((await exportKey(await serviceToken())).body);
    const decipher = createDecipheriv(
      'aes-256-gcm',
      Buffer.from(key_material_b64, 'base64'),
      sealed.subarray(0, 12),
    );
    decipher.setAAD(Buffer.from(`bundoc/doc/v1\0project-a\0${name}`)).setAuthTag(sealed.subarray(-16));
    const plaintext = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString();
    expect(plaintext).toBe((await client.get('project-a', PLANTED.collection, PLANTED.id)).text);
  });

  it('answers the curl of the quick start', async () => {
    const readme = readFileSync(join(root, 'README.md'), 'utf8');
    const [, lines = ''] = /```sh\ndocker compose up [^\n]*\n(.*?)```/s.exec(readme) ?? [];
    const script = lines.replace('http://127.0.0.1:8080', await stack.url('bundoc'));
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], {
      env: { ...process.env, ...stack.environment },
    });
    expect(JSON.parse(stdout)).toMatchObject({ _id: 'first', _rev: expect.any(String) });
  });

  it('recorded the export of the key as CRITICAL, in a chain that verifies', async () => {
    const [first] = await auditOf('severity=CRITICAL&key=project-a-dek');
    expect(first).toMatchObject({ severity: 'CRITICAL', actor: 'bundoc', key: 'project-a-dek' });
    const released = (await auditOf('severity=CRITICAL&key=project-a-dek')).filter(
      (r) => r.outcome === 'allowed',
    );
    expect(released.length).toBeGreaterThan(0);
    expect(await stack.exec('bunkms', 'bunkms', 'audit', 'verify')).toContain('intact');
  });

  it('refuses a client token at export, and records the refusal', async () => {
    const before = (await auditOf('severity=CRITICAL')).filter(({ outcome }) => outcome === 'refused').length;
    const client = await stack.token(
      '--typ',
      'client',
      '--sub',
      'thief',
      '--scope',
      'kms:read_key',
      '--keys',
      '*',
    );
    expect(await exportKey(client)).toMatchObject({ outcome: 403 });
    const refused = (await auditOf('severity=CRITICAL')).filter(({ outcome }) => outcome === 'refused');
    expect(refused.length).toBe(before + 1);
    expect(refused.at(-1)).toMatchObject({ actor: 'thief', key: 'project-a-dek' });
  });

  it.each(['bunkms', 'bundoc'] as const)(
    'runs %s without privileges, swap or a writable root',
    async (service) => {
      const [{ Config, HostConfig, NetworkSettings }] = JSON.parse(
        await docker(['inspect', stack.container(service)]),
      );
      expect(Config.User).toBe('1000:1000');
      expect(HostConfig).toMatchObject({
        ReadonlyRootfs: true,
        Privileged: false,
        CapDrop: ['ALL'],
        CapAdd: null,
        SecurityOpt: ['no-new-privileges:true'],
        Init: true,
        PidsLimit: 128,
        Ulimits: [{ Name: 'core', Hard: 0, Soft: 0 }],
        RestartPolicy: { Name: 'unless-stopped' },
      });
      expect(HostConfig.Memory).toBeGreaterThan(0);
      expect(HostConfig.MemorySwap).toBe(HostConfig.Memory);
      expect(Object.keys(HostConfig.Tmpfs)).toEqual(['/tmp']);
      const published = Object.entries<{ HostIp: string }[] | null>(NetworkSettings.Ports).flatMap(
        ([port, bindings]) => (bindings ?? []).map(({ HostIp }) => `${port} on ${HostIp}`),
      );
      expect(published).toEqual([`${service === 'bundoc' ? 8080 : 8081}/tcp on 127.0.0.1`]);
    },
  );

  it('cannot write outside its volumes and /tmp, and cannot gain a capability', async () => {
    await expect(stack.exec('bundoc', 'touch', '/app/x')).rejects.toThrow('Read-only file system');
    await expect(stack.exec('bunkms', 'touch', '/var/lib/kms-kek/x')).rejects.toThrow(
      'Read-only file system',
    );
    const status = await stack.exec('bunkms', 'grep', '^Cap', '/proc/self/status');
    expect(status.match(/0000000000000000/g)).toHaveLength(5);
  });

  it('gives the KEK only to BunKMS and the service token only to Bundoc', async () => {
    const mounts = async (service: 'bunkms' | 'bundoc') =>
      (
        await docker([
          'inspect',
          '--format',
          '{{range .Mounts}}{{.Destination}} {{end}}',
          stack.container(service),
        ])
      )
        .split(' ')
        .sort();
    expect(await mounts('bunkms')).toEqual([
      '/var/lib/bunkms',
      '/var/lib/bunkms-tls',
      '/var/lib/kms-backups',
      '/var/lib/kms-kek',
    ]);
    expect(await mounts('bundoc')).toEqual([
      // Empty in this stack: the password and the authority of a PostgreSQL server.
      '/run/secrets/postgres-ca',
      '/run/secrets/postgres-password',
      '/var/lib/bundoc',
      '/var/lib/bundoc-tls',
      '/var/lib/kms-token',
    ]);
  });

  it('loads a new certificate of each service without a restart', async () => {
    const startedAt = (service: 'bunkms' | 'bundoc') =>
      docker(['inspect', '--format', '{{.State.StartedAt}}', stack.container(service)]);
    const before = [await startedAt('bunkms'), await startedAt('bundoc')];
    const { cert } = await stack.clientPems();
    await stack.compose('run', '--rm', '--entrypoint', 'sh', 'init', '-c', 'rm /var/lib/*-tls/cert.pem');
    await stack.compose('run', '--rm', 'init');
    expect((await stack.clientPems()).cert).not.toBe(cert);
    await eventually(async () => {
      const logs = await stack.compose('logs', '--no-color');
      const lines = logs.split('\n').filter((line) => line.includes('the certificate was reloaded'));
      for (const use of ['api', 'internal', 'client'])
        expect(lines.some((line) => line.includes(`"use":"${use}"`))).toBe(true);
    });
    expect(await client.put('project-a', PLANTED.collection, 'renewed', '{}')).toMatchObject({ status: 201 });
    expect([await startedAt('bunkms'), await startedAt('bundoc')]).toEqual(before);
  });

  it('does not start an inspector on a signal', async () => {
    await docker(['kill', '--signal', 'USR1', stack.container('bundoc')]);
    expect(await client.get('project-a', PLANTED.collection, PLANTED.id)).toMatchObject({ status: 200 });
    expect(await stack.compose('logs', '--no-color', 'bundoc')).not.toContain('Debugger listening');
  });

  it('keeps documents, KEK and tokens when the whole project is taken down and brought up', async () => {
    const secrets = async () => [
      await stack.exec('bunkms', 'cat', '/var/lib/kms-kek/kek'),
      await serviceToken(),
      await stack.ca(),
    ];
    const before = await secrets();
    await stack.compose('down');
    await stack.up();
    expect(await secrets()).toEqual(before);

    client = await bundocClient(stack, 'project-a');
    const answer = await client.get('project-a', PLANTED.collection, PLANTED.id);
    expect(answer.status).toBe(200);
    expect(answer.text).toContain(BODY.slice(1, -1));
    expect((await client.put('project-a', PLANTED.collection, 'another', '{}')).status).toBe(201);
    expect(await stack.exec('bunkms', 'bunkms', 'audit', 'verify')).toContain('intact');
  });

  it('restarts in place without losing a document', async () => {
    await stack.compose('restart');
    await stack.up();
    client = await bundocClient(stack, 'project-a');
    expect((await client.get('project-a', PLANTED.collection, PLANTED.id)).status).toBe(200);
  });
}

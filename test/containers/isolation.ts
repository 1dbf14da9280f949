import { GenericContainer, PullPolicy, type StartedTestContainer } from 'testcontainers';
import { beforeAll, expect, it } from 'vitest';
import { ask, bundocClient } from './support/client.ts';
import { docker } from './support/docker.ts';
import { type Finding, parseFindings, probeCommand } from './support/probe.ts';
import type { Stack } from './support/stack.ts';

const EXPORT = '/v1/export/project-a-dek';
const API_PORT = 8081;
const INTERNAL_PORT = 8082;

/** Who can reach the export of keys in a running project. */
export function isolatesExport(started: () => Stack): void {
  let stack: Stack;
  let token: string;
  let pems: { cert: string; key: string };
  let addresses: { edge: string; internal: string };

  beforeAll(async () => {
    stack = started();
    const client = await bundocClient(stack, 'project-a');
    expect(await client.put('project-a', 'notes', 'exported', '{}')).toMatchObject({ status: 201 });
    // The token may export keys: below, only the network refuses a stranger.
    token = await stack.token(
      '--typ',
      'service',
      '--sub',
      'probe',
      '--scope',
      'kms:export_key',
      '--keys',
      '*',
    );
    pems = await stack.clientPems();
    const addressOn = (network: string) =>
      docker([
        ...[
          'inspect',
          '--format',
          `{{(index .NetworkSettings.Networks "${stack.project}_${network}").IPAddress}}`,
        ],
        stack.container('bunkms'),
      ]);
    addresses = { edge: await addressOn('edge'), internal: await addressOn('internal') };
  });

  /**
   * Asks every name and address of BunKMS, at both ports, from a container on `network`, with Bundoc's
   * certificate by default.
   */
  const probeFrom = async (network: string, certificate: object = { pems }): Promise<Finding[]> => {
    const hosts = [
      'bunkms-internal',
      'bunkms',
      stack.container('bunkms'),
      addresses.edge,
      addresses.internal,
    ];
    const targets = hosts.flatMap((host) => [API_PORT, INTERNAL_PORT].map((port) => ({ host, port })));
    const container: StartedTestContainer = await new GenericContainer(stack.bunkmsImage)
      .withPullPolicy(PullPolicy.neverPull())
      .withNetworkMode(network)
      .withCommand(['sleep', '300'])
      .start();
    try {
      const { exitCode, output } = await container.exec(
        probeCommand({ path: EXPORT, token, targets, ...certificate }),
      );
      expect(exitCode, output).toBe(0);
      return parseFindings(output);
    } finally {
      await container.stop({ timeout: 0 });
    }
  };
  const answersOf = (findings: Finding[]) =>
    findings
      .filter(({ outcome }) => typeof outcome === 'number')
      .map(({ host, port, outcome }) => `${outcome} from ${host}:${port}`)
      .sort();

  it('answers inside the internal network, which shows that the probe works', async () => {
    const findings = await probeFrom(`${stack.project}_internal`);
    const released = findings.filter(({ outcome }) => outcome === 200);
    expect(released.map(({ host, port }) => `${host}:${port}`)).toEqual(
      expect.arrayContaining([`bunkms-internal:${INTERNAL_PORT}`, `${addresses.internal}:${INTERNAL_PORT}`]),
    );
    for (const { body } of released) expect(body).toContain('key_material_b64');
  });

  it('is refused inside the internal network to a caller with a token and no certificate', async () => {
    const findings = await probeFrom(`${stack.project}_internal`, {});
    const answered = findings.filter(({ outcome }) => typeof outcome === 'number');
    expect(answered.length).toBeGreaterThan(0);
    expect(answered.map(({ port, outcome }) => `${outcome} from ${port}`)).toEqual(
      answered.map(() => `404 from ${API_PORT}`),
    );
    for (const { body } of findings) expect(body).not.toContain('key_material_b64');
  });

  it('cannot be reached by any name, port or address from the other network of BunKMS', async () => {
    const findings = await probeFrom(`${stack.project}_edge`);
    // This network reaches the API listener, which does not have this route.
    expect(answersOf(findings)).toEqual(
      ['bunkms', stack.container('bunkms'), addresses.edge]
        .map((host) => `404 from ${host}:${API_PORT}`)
        .sort(),
    );
    for (const { body } of findings) expect(body).not.toContain('key_material_b64');
  });

  it('cannot be reached by any name, port or address from an unrelated network', async () => {
    expect(answersOf(await probeFrom('bridge'))).toEqual([]);
  });

  it('is not behind a published port', async () => {
    for (const service of ['bunkms', 'bundoc'] as const) {
      const answer = await ask(`${await stack.url(service)}${EXPORT}`, { token, ca: await stack.ca() });
      expect(answer.status).toBe(404);
      expect(answer.text).not.toContain('key_material_b64');
    }
  });
}

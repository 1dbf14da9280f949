import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readConfig as readBundocConfig } from '@bundoc/bundoc/config';
import { readConfig as readBunkmsConfig } from '@bundoc/bunkms/config';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { devSetup } from './lib/dev-setup.mjs';

const root = join(import.meta.dirname, '..');
const textOf = (path: string) => readFileSync(join(root, path), 'utf8');
const pages = ['*.md', 'docs/**/*.md', 'packages/*/README.md'].flatMap((cwd) => globSync(cwd, { cwd: root }));

const bundoc = readBundocConfig({ BUNDOC_KMS_TOKEN_FILE: '/run/token' });
const bunkms = readBunkmsConfig({ BUNKMS_KEK: '00'.repeat(32) });
const PORTS = { bundoc: bundoc.port, bunkms: bunkms.port, internal: bunkms.internalPort };

interface Compose {
  readonly services: Record<'bundoc' | 'bunkms', { ports: string[]; environment: Record<string, string> }>;
}

/** A port on this machine that a page names, and the first segment of the API path after it. */
interface Named {
  readonly place: string;
  readonly port: number;
  readonly path: string | undefined;
}

function placesOf(text: string): Named[] {
  const found = text.matchAll(/(?:127\.0\.0\.1|localhost|\[::1\]):(\d+)(?:\/v1\/([a-z]+))?/g);
  return [...found].map(([place, port, path]) => ({ place, port: Number(port), path }));
}

/** The ports that serve a path. The internal listener also serves the paths of the API. */
function portsOf(path: string | undefined): number[] {
  if (path === undefined) return Object.values(PORTS);
  if (path === 'projects') return [PORTS.bundoc];
  if (path === 'export' || path === 'events') return [PORTS.internal];
  return [PORTS.bunkms, PORTS.internal];
}

/** Ports of programs that the page starts itself. */
const ownPortsOf = (text: string) =>
  [
    ...text.matchAll(
      /(?:\.listen\(|BUNKMS_(?:INTERNAL_)?PORT=|NOTES_URL'\] \?\? 'http:\/\/127\.0\.0\.1:)(\d+)/g,
    ),
  ].map(([, port]) => Number(port));

/** Addresses where none of our services listens, or not the one that serves the path. */
function wrongPlaces(text: string): string[] {
  const own = ownPortsOf(text);
  return placesOf(text)
    .filter(({ port, path }) => !portsOf(path).includes(port) && !own.includes(port))
    .map(({ place }) => place);
}

describe('the ports of the services', () => {
  it('are the same by default, in `npm start` and in the compose file', () => {
    const setup = devSetup(root, {});
    const ofSetup = [setup.bundocApi, setup.kmsApi, setup.kmsInternal].map(({ port }) => port);
    expect(ofSetup).toEqual(Object.values(PORTS));
    expect(new URL(bundoc.kms.url).port).toBe(String(PORTS.internal));
    const { services } = parse(textOf('docker-compose.yml')) as Compose;
    expect([services.bundoc.ports, services.bunkms.ports]).toEqual([
      [`127.0.0.1:\${BUNDOC_PORT:-${PORTS.bundoc}}:${PORTS.bundoc}`],
      [`127.0.0.1:\${BUNKMS_PORT:-${PORTS.bunkms}}:${PORTS.bunkms}`],
    ]);
    expect(services.bundoc.environment['BUNDOC_KMS_URL']).toMatch(new RegExp(`:${PORTS.internal}$`));
  });

  it('match those in the pages and the paths that they serve', () => {
    const places = pages.flatMap((page) => placesOf(textOf(page)));
    expect(places.length).toBeGreaterThan(30);
    expect(pages.flatMap((page) => wrongPlaces(textOf(page)).map((place) => `${page}: ${place}`))).toEqual(
      [],
    );
  });

  it('match the table of variables and the picture in the README', () => {
    const table = textOf('docs/configuration.md');
    const row = (variable: string) => table.split('\n').find((line) => line.includes(`\`${variable}\``));
    for (const [variable, port] of [
      ['BUNDOC_PORT', PORTS.bundoc],
      ['BUNKMS_PORT', PORTS.bunkms],
      ['BUNKMS_INTERNAL_PORT', PORTS.internal],
    ] as const)
      expect(row(variable), variable).toContain(`\`${port}\``);
    const picture = textOf('README.md').match(/ :\d{4,5} /g);
    expect(picture?.map((text) => Number(text.trim().slice(1)))).toEqual(Object.values(PORTS));
  });

  it('are reported as wrong in a page with another port, or one that does not serve the path', () => {
    expect(wrongPlaces('curl http://127.0.0.1:8080/v1/projects; curl localhost:8081/v1/keys')).toEqual([]);
    for (const place of ['127.0.0.1:3000', 'localhost:8085', '127.0.0.1:8081/v1/projects'])
      expect(wrongPlaces(`curl http://${place}`)).toEqual([place]);
    expect(wrongPlaces('createServer().listen(3000); curl http://127.0.0.1:3000')).toEqual([]);
  });
});

import { execFileSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/**
 * Compares the public surface with the files in `surface/`: the wire of both services, and the types of the
 * client. `npm run surface` accepts a deliberate change. Its diff belongs in the review, and the steps for
 * users belong in the changelog.
 */

const root = join(import.meta.dirname, '..');

/** Members with prose, whose text is not part of the wire. */
const PROSE = new Set([
  'description',
  'summary',
  'title',
  'example',
  'examples',
  'x-example-status',
  'x-refused-requests',
]);
/** Members whose keys are names of the wire, such as a property called `title`. */
const NAMED = new Set(['properties', 'headers', 'schemas', 'paths', 'responses', 'content', '$defs']);

function withoutProse(value: unknown, areNames = false): unknown {
  if (Array.isArray(value)) return value.map((item) => withoutProse(item));
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).filter(([name]) => areNames || !PROSE.has(name));
  return Object.fromEntries(
    members
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => [name, withoutProse(member, !areNames && NAMED.has(name))]),
  );
}

type Members = Readonly<Record<string, unknown>>;

/** Paths, methods, parameters, bodies, codes and schemas of an OpenAPI document. */
function wireOf({ paths, components }: Members): Wire {
  return withoutProse({ paths, components }) as Wire;
}
interface Wire {
  readonly paths: Members;
  readonly components: Readonly<Record<string, Members>>;
}

/** The names of all paths, and what the other wire does not have in the same form. */
function wireBeside(other: Wire, { paths, components }: Wire): Members {
  const own = (members: Members, others: Members = {}) =>
    Object.fromEntries(
      Object.entries(members).filter(
        ([name, member]) => JSON.stringify(member) !== JSON.stringify(others[name]),
      ),
    );
  const kinds = Object.entries(components).map(([kind, some]) => [kind, own(some, other.components[kind])]);
  return {
    all: Object.keys(paths),
    paths: own(paths, other.paths),
    components: Object.fromEntries(kinds),
  };
}

const LINE_LENGTH = 140;

/** JSON in which each value that fits is on one line. */
function layOut(value: unknown, indent = ''): string {
  const line = JSON.stringify(value);
  if (typeof value !== 'object' || value === null || indent.length + line.length <= LINE_LENGTH) return line;
  const inner = `${indent} `;
  const [open, close, lines] = Array.isArray(value)
    ? ['[', ']', value.map((item) => layOut(item, inner))]
    : [
        '{',
        '}',
        Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${layOut(item, inner)}`),
      ];
  return `${open}\n${lines.map((text) => inner + text).join(',\n')}\n${indent}${close}`;
}

describe('the wire is as committed:', () => {
  let installation: Installation;
  beforeAll(async () => {
    installation = await Installation.start();
  });
  afterAll(() => installation[Symbol.asyncDispose]());

  const read = async (url: string) => wireOf((await call(url, '/openapi.json')).json());
  const expectCommitted = async (name: string, wire: unknown) => {
    const text = layOut(wire);
    expect(text.length).toBeGreaterThan(5_000);
    await expect(`${text}\n`).toMatchFileSnapshot(`surface/${name}.openapi.json`);
  };

  it('Bundoc', async () => expectCommitted('bundoc', await read(installation.url)));

  it('the API of BunKMS', async () => expectCommitted('bunkms-api', await read(installation.kms.apiUrl)));

  it('the internal listener of BunKMS, as far as it differs from the API', async () => {
    const [api, internal] = [await read(installation.kms.apiUrl), await read(installation.kms.internalUrl)];
    await expectCommitted('bunkms-internal', wireBeside(api, internal));
  });
});

it('a property of the wire with the name of a prose member is compared', () => {
  const schema = { title: 'T', properties: { title: { type: 'string', description: 'D' } }, type: 'object' };
  expect(withoutProse({ schemas: { examples: schema } })).toEqual({
    schemas: { examples: { properties: { title: { type: 'string' } }, type: 'object' } },
  });
});

it('the names and types that @bundoc/client exports are as committed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-client-types-'));
  try {
    const tsc = join(root, 'node_modules/.bin/tsc');
    const options = '--composite false --incremental false --emitDeclarationOnly --removeComments --outDir';
    execFileSync(tsc, ['-p', join(root, 'packages/client'), ...options.split(' '), folder]);
    const modules = globSync('**/*.d.ts', { cwd: folder }).sort();
    expect(modules).toContain('client.d.ts');
    const surface = modules.map((name) => `// ${name}\n${readFileSync(join(folder, name), 'utf8')}`);
    await expect(surface.join('\n')).toMatchFileSnapshot('surface/client.d.ts.txt');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

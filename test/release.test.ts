import { execFile, execFileSync } from 'node:child_process';
import { appendFileSync, cpSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { LONG } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectOpens } from './support/open-release.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..');
/** Paths that are not in the repository, or are not sources. */
const NOT_COPIED =
  /(^|\/)(\.git|node_modules|dist|\.cache)$|^(data|release|bench\/results|site\/src\/content|site\/\.astro)$/;

interface Manifest {
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: object;
  readonly private?: boolean;
}

describe('a release', needs('registry'), () => {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-release-test-'));
  const repository = join(folder, 'repository');
  const [dry, real] = [join(folder, 'dry'), join(folder, 'real')];
  const current = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest).version;
  const version = current.replace(/\d+$/, (patch) => String(Number(patch) + 1));
  let head: string;

  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.org', ...args], {
      cwd: repository,
      encoding: 'utf8',
    }).trim();
  const release = (...args: string[]) =>
    run(process.execPath, [join(repository, 'scripts', 'release.mjs'), ...args], { cwd: repository });
  const tarball = (name: string) => join(real, `bundoc-${name}-${version}.tgz`);
  const entriesOf = (name: string) =>
    execFileSync('tar', ['-tzf', tarball(name)], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map((path) => path.replace(/^package\//, ''));
  const fileOf = (name: string, path: string) =>
    execFileSync('tar', ['-xzOf', tarball(name), `package/${path}`], { encoding: 'utf8' });
  const expectFiles = (out: string) => {
    expect(globSync('*', { cwd: out }).sort()).toEqual(
      [
        'SHA256SUMS',
        ...['bundoc', 'bunkms', 'client', 'console', 'shared'].map((name) => `bundoc-${name}-${version}.tgz`),
        ...['bundoc', 'bunkms'].map((name) => `bundoc-${name}-${version}.cdx.json`),
      ].sort(),
    );
    const checked = execFileSync('sha256sum', ['--check', 'SHA256SUMS'], { cwd: out }).toString();
    expect(checked.match(/: OK$/gm)).toHaveLength(7);
  };

  beforeAll(async () => {
    cpSync(root, repository, { recursive: true, filter: (path) => !NOT_COPIED.test(relative(root, path)) });
    appendFileSync(join(repository, 'docs/operations/upgrade.md'), `| ${version} | opens: a test | |\n`);
    git('init', '--quiet', '--initial-branch=main');
    git('add', '--all');
    git('commit', '--quiet', '--message=Everything');
    head = git('rev-parse', 'HEAD');
    if (LONG) await release(version, '--dry-run', '--out', dry);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  // A second release, which takes as long as the one below. So only `npm run test:long` makes it.
  if (LONG)
    it('as a dry run leaves the repository unchanged', () => {
      expect([git('rev-parse', 'HEAD'), git('status', '--porcelain'), git('tag', '--list')]).toEqual([
        head,
        '',
        '',
      ]);
      expectFiles(dry);
    });

  it.each([
    ['nothing', [], 'give one version'],
    ['an invalid version', ['v1'], 'is not a version'],
    ['a version that is not newer', [current], 'is not newer'],
    ['a folder that is not empty', ['99.0.0', '--out', join(repository, 'docs')], 'is not empty'],
    ['a release that the upgrade page does not name', ['99.0.0', '--dry-run'], 'upgrade.md'],
  ])('is refused for %s', async (_what, args, why) => {
    await expect(release(...args)).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(why) });
  });

  describe('that is made', () => {
    beforeAll(async () => {
      await release(version, '--out', real);
    });

    it('has a package and an SBOM for each part, with their sums', () => expectFiles(real));

    if (LONG)
      it('has the same bytes as an earlier release of the same commit', () => {
        const sums = (out: string) => readFileSync(join(out, 'SHA256SUMS'), 'utf8');
        expect(sums(real)).toBe(sums(dry));
      });

    it('is a commit with a tag, all packages at its version, and a section of the changelog', () => {
      expect(git('tag', '--list')).toBe(`v${version}`);
      expect(git('log', '--format=%s', `${head}..`).split('\n')).toEqual([
        `Keep data that ${version} wrote`,
        `Release ${version}`,
      ]);
      expect([git('rev-parse', `v${version}^{commit}`), git('status', '--porcelain')]).toEqual([
        git('rev-parse', 'HEAD~1'),
        '',
      ]);
      const manifests = globSync(['package.json', 'packages/*/package.json'], { cwd: repository });
      const versions = manifests.map(
        (path) => (JSON.parse(readFileSync(join(repository, path), 'utf8')) as Manifest).version,
      );
      expect(versions).toEqual(Array(6).fill(version));
      const changelog = readFileSync(join(repository, 'CHANGELOG.md'), 'utf8');
      expect(changelog).toMatch(
        new RegExp(`^## Unreleased\n\n## ${version} - \\d{4}-\\d\\d-\\d\\d\n\n### .+$`, 'm'),
      );
    });

    it('includes data that opens with this build', () =>
      expectOpens(join(repository, 'test', 'releases', `${version}.tar.gz`)));

    it.each([
      ['bundoc', ['@bundoc/client', '@bundoc/shared', 'fastify', 'pg', 'undici', 'zod']],
      ['bunkms', ['@bundoc/shared', 'fastify', 'jose', 'pg', 'zod']],
    ])('lists the runtime packages in the SBOM of %s, and no test dependencies', (service, some) => {
      const sbom = readFileSync(join(real, `bundoc-${service}-${version}.cdx.json`), 'utf8');
      const { components } = JSON.parse(sbom) as { components: { name: string; group?: string }[] };
      const names = components.map(({ group, name }) => (group ? `${group}/${name}` : name));
      expect(names).toEqual(expect.arrayContaining(some));
      expect(names.filter((name) => /vitest|typescript|testcontainers|biome/.test(name))).toEqual([]);
    });

    it.each(['bundoc', 'bunkms', 'client', 'console', 'shared'])(
      'packs %s with only published files, released dependencies and absolute links',
      (name) => {
        const entries = entriesOf(name);
        expect(entries).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'package.json']));
        const strange = entries.filter(
          (path) =>
            !/^(dist|migrations)\/|^src\/styles\/\w+\.(css|svg)$|^(LICENSE|README\.md|schema\.sql|package\.json|folder\.(js|d\.ts))$/.test(
              path,
            ),
        );
        expect(strange).toEqual([]);
        expect(entries.filter((path) => /tsbuildinfo|\.test\.|conformance|\/testing\//.test(path))).toEqual(
          [],
        );
        const manifest = JSON.parse(fileOf(name, 'package.json')) as Manifest;
        expect(manifest).toMatchObject({ version });
        expect([manifest.private, manifest.devDependencies]).toEqual([undefined, undefined]);
        expect(JSON.stringify(manifest)).not.toMatch(/workspace:|@bundoc\/source/);
        for (const [dependency, range] of Object.entries(manifest.dependencies ?? {}))
          if (dependency.startsWith('@bundoc/')) expect([dependency, range]).toEqual([dependency, version]);
        // A relative link is broken on a registry.
        const links = [...fileOf(name, 'README.md').matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target);
        expect(links.filter((target) => !/^(https:|#)/.test(String(target)))).toEqual([]);
      },
    );

    it('has a client that passes publint and attw', async () => {
      const bytes = readFileSync(tarball('client'));
      const packed = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
      const { messages, pkg } = await publint({ pack: { tarball: packed }, strict: true });
      expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
      const attw = join(root, 'node_modules', '.bin', 'attw');
      // With a fault, it exits with a non-zero code, and the call throws.
      const { stdout } = await run(attw, [
        tarball('client'),
        '--profile',
        'esm-only',
        '--no-emoji',
        '--no-color',
      ]);
      expect(stdout).toMatch(/^│ "@bundoc\/client" +│ OK \(ESM\) +│ OK +│/m);
    });

    it('has a client whose source maps carry their sources', () => {
      const maps = entriesOf('client').filter((path) => path.endsWith('.js.map'));
      expect(maps.length).toBeGreaterThan(10);
      for (const path of maps) {
        const { sources, sourcesContent } = JSON.parse(fileOf('client', path)) as Record<string, string[]>;
        expect(sourcesContent).toHaveLength(Number(sources?.length));
      }
    });
  });
});

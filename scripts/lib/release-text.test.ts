import { describe, expect, it } from 'vitest';
import { packedManifest, requireNewer, stableSbom, withRelease, withVersion } from './release-text.mjs';

describe('the version of a release', () => {
  it.each([
    ['0.2.0', '0.1.0'],
    ['0.1.1', '0.1.0'],
    ['1.0.0', '0.10.9'],
    ['0.10.0', '0.9.0'],
  ])('%s follows %s', (version, current) => {
    expect(() => requireNewer(version, current)).not.toThrow();
  });

  it.each([
    ['0.1.0', 'is not newer than 0.1.0'],
    ['0.0.9', 'is not newer than 0.1.0'],
    ['v0.2.0', 'is not a version'],
    ['0.2', 'is not a version'],
    ['0.02.0', 'is not a version'],
    ['', 'is not a version'],
  ])('%j does not follow 0.1.0', (version, why) => {
    expect(() => requireNewer(version, '0.1.0')).toThrow(why);
  });

  it('is the only change of a manifest', () => {
    const manifest = '{\n  "name": "x",\n  "version": "0.1.0",\n  "dependencies": { "y": "0.1.0" }\n}\n';
    expect(withVersion(manifest, '0.2.0')).toBe(manifest.replace('"version": "0.1.0"', '"version": "0.2.0"'));
  });
});

describe('the changelog of a release', () => {
  it('has the unreleased entries below the version and its date', () => {
    const before = '# Changelog\n\n## Unreleased\n\n### Added\n\n- One.\n\n## 0.1.0 - 2026-01-01\n';
    expect(withRelease(before, '0.2.0', '2026-11-27')).toBe(
      '# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-11-27\n\n### Added\n\n- One.\n\n## 0.1.0 - 2026-01-01\n',
    );
  });

  it.each([
    '# Changelog\n',
    '# Changelog\n\n## Unreleased\n',
    '## Unreleased\n\n## 0.1.0 - 2026-01-01\n\n- One.\n',
  ])('is refused when nothing is unreleased: %j', (changelog) => {
    expect(() => withRelease(changelog, '0.2.0', '2026-11-27')).toThrow('CHANGELOG.md');
  });
});

it('a packed manifest names no sources and no members that only the workspace needs', () => {
  const manifest = {
    name: 'x',
    exports: { './a': { '@bundoc/source': './src/a.ts', types: './a.d.ts', default: './a.js' }, './b': null },
    dependencies: { y: '1' },
    devDependencies: { z: '1' },
  };
  expect(JSON.parse(packedManifest(JSON.stringify(manifest)))).toEqual({
    name: 'x',
    exports: { './a': { types: './a.d.ts', default: './a.js' }, './b': null },
    dependencies: { y: '1' },
  });
});

it('an SBOM has no creation time, and lists the same content in the same order', () => {
  const metadata = { component: { name: 'x' } };
  const sbom = (...names: string[]) => ({
    serialNumber: `urn:uuid:${names.join()}`,
    metadata: { timestamp: names.join(), ...metadata },
    components: names.map((name) => ({ 'bom-ref': name })),
    dependencies: [{ ref: 'z' }, { ref: 'x', dependsOn: names }],
  });
  const stable = stableSbom(JSON.stringify(sbom('a', 'b')));
  expect(stableSbom(JSON.stringify(sbom('b', 'a')))).toBe(stable);
  expect(JSON.parse(stable)).toEqual({
    metadata,
    components: [{ 'bom-ref': 'a' }, { 'bom-ref': 'b' }],
    dependencies: [{ ref: 'x', dependsOn: ['a', 'b'] }, { ref: 'z' }],
  });
});

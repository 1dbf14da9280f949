import { UserError } from './root.mjs';

const VERSION = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$/;

/**
 * @param {string} version the new version
 * @param {string} current
 */
export function requireNewer(version, current) {
  const parts = (text) => VERSION.exec(text)?.slice(1).map(Number);
  const [wanted, present] = [parts(version), parts(current)];
  if (wanted === undefined) throw new UserError(`"${version}" is not a version such as 0.2.0`);
  if (present === undefined) throw new Error(`the packages have the version "${current}"`);
  const at = wanted.findIndex((part, index) => part !== present[index]);
  if (at < 0 || wanted[at] < present[at])
    throw new UserError(`${version} is not newer than ${current}, the version of the packages`);
}

/** A manifest with another version. Nothing else in its text changes. */
export function withVersion(manifest, version) {
  const { version: current } = JSON.parse(manifest);
  return manifest.replace(`"version": "${current}"`, `"version": "${version}"`);
}

/**
 * The changelog with its unreleased entries as a new section.
 * @param {string} date such as 2026-11-27
 */
export function withRelease(changelog, version, date) {
  const heading = '## Unreleased\n';
  const [before, after] = changelog.split(heading);
  if (after === undefined) throw new UserError('CHANGELOG.md has no section "## Unreleased"');
  if (/^\s*(##\s|$)/.test(after)) throw new UserError('CHANGELOG.md: the section "## Unreleased" is empty');
  return `${before}${heading}\n## ${version} - ${date}\n${after}`;
}

/**
 * The packed form of a manifest: without the condition by which tests find sources, and without members that
 * only the workspace needs.
 */
export function packedManifest(manifest) {
  const { devDependencies: _, exports, ...rest } = JSON.parse(manifest);
  return `${JSON.stringify({ ...rest, exports: withoutSource(exports) }, null, 2)}\n`;
}

function withoutSource(exports) {
  if (typeof exports === 'string' || exports === null) return exports;
  return Object.fromEntries(
    Object.entries(exports)
      .filter(([name]) => name !== '@bundoc/source')
      .map(([name, value]) => [name, withoutSource(value)]),
  );
}

/**
 * A reproducible CycloneDX document: sorted, and without serial number and time.
 * @param {string} text
 */
export function stableSbom(text) {
  const { serialNumber: _, components = [], dependencies = [], ...sbom } = JSON.parse(text);
  delete sbom.metadata?.timestamp;
  const sorted = (list, name) => list.toSorted((a, b) => (a[name] < b[name] ? -1 : 1));
  const stable = {
    ...sbom,
    components: sorted(components, 'bom-ref'),
    dependencies: sorted(dependencies, 'ref').map(({ dependsOn, ...rest }) => ({
      ...rest,
      ...(dependsOn === undefined ? {} : { dependsOn: dependsOn.toSorted() }),
    })),
  };
  return `${JSON.stringify(stable, null, 2)}\n`;
}

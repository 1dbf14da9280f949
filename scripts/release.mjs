// npm run release -- 0.2.0 [--dry-run] [--out <folder>]
//
// Makes a release of the committed state. It sets the version of all packages, adds a section to the
// changelog, and commits with a tag. It builds tarballs, SBOMs and checksums, and keeps data from the packed
// services for tests of later releases. Everything happens in a clone. The repository gets the commits and
// the tag only after everything else has succeeded, and never with --dry-run.

import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { findNode } from './lib/node-runtime.mjs';
import { installPacked } from './lib/packed.mjs';
import { keepReleaseData } from './lib/release-data.mjs';
import { packedManifest, requireNewer, stableSbom, withRelease, withVersion } from './lib/release-text.mjs';
import { root, runScript, UserError } from './lib/root.mjs';
import { mustRun, outputOf } from './lib/run.mjs';
import { stopSignal } from './lib/stop-signals.mjs';
import { manifests, PNPM, prepare } from './lib/workspace.mjs';

const USAGE = 'npm run release -- <version> [--dry-run] [--out <folder>]';
const stop = stopSignal(() => process.exit(1));

await runScript('npm run release', async () => {
  const { version, isDry, out } = wishes();
  const node = await findNode(root, process.env);
  const git = (cwd, ...args) => mustRun('git', args, { cwd, env: node.env, signal: stop });
  const ask = (cwd, ...args) => outputOf('git', args, { cwd, env: node.env });

  requireNewer(version, JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version);
  if ((await ask(root, 'status', '--porcelain')) !== '') throw new UserError('there are uncommitted changes');
  const tag = `v${version}`;
  if ((await ask(root, 'tag', '--list', tag)) !== '') throw new UserError(`the tag ${tag} exists already`);

  const upgrades = readFileSync(join(root, 'docs', 'operations', 'upgrade.md'), 'utf8');
  if (!upgrades.includes(`\n| ${version} | `))
    throw new UserError(`docs/operations/upgrade.md does not describe the upgrade of data of ${version}`);

  const scratch = mkdtempSync(join(tmpdir(), 'bundoc-release-'));
  const clone = join(scratch, 'clone');
  try {
    await git(root, 'clone', '--quiet', '--no-hardlinks', root, clone);
    const edit = (path, change) =>
      writeFileSync(join(clone, path), change(readFileSync(join(clone, path), 'utf8')));
    const packages = manifests(clone);
    for (const { file } of packages) edit(file, (text) => withVersion(text, version));
    // The date of the last commit, so that the same commit gives the same release.
    const date = await ask(clone, 'log', '-1', '--format=%cd', '--date=format:%Y-%m-%d');
    edit('CHANGELOG.md', (text) => withRelease(text, version, date));
    const committer = await ask(root, 'log', '-1', '--format=%cn\t%ce');
    const [name, email] = String(committer).split('\t');
    const identity = ['-c', `user.name=${name}`, '-c', `user.email=${email}`];
    await git(clone, ...identity, 'commit', '--quiet', '--all', '--message', `Release ${version}`);
    await git(clone, ...identity, 'tag', '--annotate', '--message', `Release ${version}`, tag);

    await prepare(clone, node, 'run', stop);
    mkdirSync(out, { recursive: true });
    const pnpm = (...args) => [
      'npx',
      ['-y', PNPM, ...args],
      { cwd: clone, env: { ...node.env, CI: 'true' } },
    ];
    // One per service: for several packages at once, the output of pnpm is not reproducible.
    for (const service of ['bundoc', 'bunkms']) {
      const filter = ['--filter', `@bundoc/${service}`];
      const sbom = await outputOf(
        ...pnpm('sbom', '--sbom-format', 'cyclonedx', '--prod', '--lockfile-only', ...filter),
      );
      if (sbom === undefined) throw new UserError('the SBOM could not be created (see the error above)');
      writeFileSync(join(out, `bundoc-${service}-${version}.cdx.json`), stableSbom(sbom));
    }
    for (const { directory, file } of packages.filter(({ directory }) => directory !== '.')) {
      edit(file, packedManifest);
      await mustRun(...pnpm('--dir', directory, 'pack', '--pack-destination', out));
    }
    writeFileSync(join(out, 'SHA256SUMS'), checksums(out));

    // Services that do not start from their tarballs are not released.
    const installed = join(scratch, 'installed');
    await installPacked({ tarballs: out, folder: installed, env: node.env, signal: stop });
    const archive = join('test', 'releases', `${version}.tar.gz`);
    await keepReleaseData({
      execPath: node.execPath,
      folder: installed,
      place: join(scratch, 'place'),
      archive: join(clone, archive),
      env: node.env,
      signal: stop,
    });
    await git(clone, 'add', archive);
    await git(clone, ...identity, 'commit', '--quiet', '--message', `Keep data that ${version} wrote`);

    if (!isDry) {
      await git(root, 'fetch', '--quiet', clone, 'HEAD', `refs/tags/${tag}:refs/tags/${tag}`);
      await git(root, 'merge', '--quiet', '--ff-only', await ask(clone, 'rev-parse', 'HEAD'));
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  console.log(readFileSync(join(out, 'SHA256SUMS'), 'utf8').trimEnd());
  console.log(
    isDry
      ? `\nDry run of ${version}: the files are in ${out}; the repository is unchanged.`
      : `\nReleased ${version}: the files are in ${out}. Push the branch and the tag: git push --follow-tags`,
  );
  return 0;
});

function wishes() {
  try {
    const { positionals, values } = parseArgs({
      allowPositionals: true,
      options: { 'dry-run': { type: 'boolean', default: false }, out: { type: 'string' } },
    });
    const [version, ...more] = positionals;
    if (version === undefined || more.length > 0) throw new Error('give one version');
    const out = resolve(values.out ?? join(root, 'release', version));
    if (existsSync(out) && readdirSync(out).length > 0) throw new Error(`${out} is not empty`);
    return { version, isDry: values['dry-run'], out };
  } catch (error) {
    throw new UserError(`${error.message}; ${USAGE}`);
  }
}

/** In the format of `sha256sum`. */
function checksums(folder) {
  return readdirSync(folder)
    .sort()
    .map(
      (name) =>
        `${createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex')}  ${name}\n`,
    )
    .join('');
}

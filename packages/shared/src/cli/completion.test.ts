import { execFileSync } from 'node:child_process';
import { Command } from '@commander-js/extra-typings';
import { expect, it } from 'vitest';
import { completionScript } from './completion.ts';

const tool = new Command('tool');
const key = tool.command('key').description("what the key's does");
key.command('create').option('--storage <id>', 'the storage').option('--json', 'print JSON');
key.command('list');
tool.command('kek').command('create');

it.each([
  [
    ['tool', ''],
    ['key', 'kek'],
  ],
  [
    ['tool', 'ke'],
    ['key', 'kek'],
  ],
  [
    ['tool', 'key', ''],
    ['create', 'list'],
  ],
  [
    ['tool', 'key', 'create', '--'],
    ['--storage', '--json', '--help'],
  ],
  [['tool', 'key', 'create', '--storage', 'x', '--j'], ['--json']],
  [['tool', 'kek', 'create', ''], []],
])('bash completes %j to %j', (words, offered) => {
  const probe = `${completionScript('bash', tool)}
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _tool
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const answer = execFileSync('bash', ['--norc', '-c', probe, 'bash', ...words], { encoding: 'utf8' });
  expect(answer.split('\n').filter(Boolean)).toEqual(offered);
});

it('fish gets every command and option, with quoted descriptions', () => {
  const script = completionScript('fish', tool);
  for (const word of ['-a kek', '-a create', '-l storage -r', String.raw`-d 'what the key'\''s does'`])
    expect(script).toContain(word);
});

it('zsh can also read it from a folder of fpath', () => {
  const script = completionScript('zsh', tool);
  expect(script).toMatch(/^#compdef tool\n/);
  expect(script).toMatch(/_bash_complete [^\n]*-F _tool; fi\n$/);
});

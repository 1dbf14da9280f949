import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type CommandNode, completionScript } from './completion.ts';

function node(name: string, commands: CommandNode[] = [], options: string[] = []): CommandNode {
  return {
    name: () => name,
    description: () => `what the key's ${name}: does`,
    commands,
    options: options.map((long) => ({ long, description: 'it is', required: true, optional: false })),
  };
}
const TREE = node('tool', [
  node('key', [node('create', [], ['--storage', '--json']), node('list')]),
  node('kek', [node('create')]),
  node('status', [], ['--json']),
]);

/** What bash offers after these words, with this script alone. */
function offered(...words: string[]): string[] {
  const probe = `
    COMP_WORDS=("$@")
    COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
    _tool
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const script = `${completionScript('bash', TREE)}\n${probe}`;
  const answer = execFileSync('bash', ['--norc', '-c', script, 'bash', ...words], { encoding: 'utf8' });
  return answer.split('\n').filter((word) => word !== '');
}

describe('the completion', () => {
  it('for bash offers the subcommands and options of the typed command', () => {
    expect(offered('tool', '')).toEqual(['key', 'kek', 'status']);
    expect(offered('tool', 'ke')).toEqual(['key', 'kek']);
    expect(offered('tool', 'key', '')).toEqual(['create', 'list']);
    expect(offered('tool', 'key', 'create', '--')).toEqual(['--storage', '--json', '--help']);
    expect(offered('tool', 'key', 'create', '--storage', 'x', '--j')).toEqual(['--json']);
    expect(offered('tool', 'kek', 'create', '')).toEqual([]);
  });

  it.each(['zsh', 'fish'] as const)(
    'for %s names every command and option, and quotes their descriptions',
    (shell) => {
      const script = completionScript(shell, TREE);
      for (const word of ['key', 'kek', 'status', 'create', 'list', 'storage', 'json'])
        expect(script).toContain(word);
      expect(script).toContain(String.raw`the key'\''s create`);
    },
  );
});

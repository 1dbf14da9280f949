import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const PACKAGES = fileURLToPath(new URL('../packages/', import.meta.url));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-completion-'));
  for (const name of ['bundoc', 'bunkms']) {
    const main = join(PACKAGES, name, 'src/cli/main.ts');
    const script = `#!/bin/sh\nexec "${process.execPath}" --conditions=@bundoc/source "${main}" "$@"\n`;
    writeFileSync(join(folder, name), script, { mode: 0o755 });
  }
  writeFileSync(join(folder, 'saved.backup'), '');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The output of a shell that runs a script, with both commands in its path and without user settings. */
function run(shell: string, args: readonly string[]): string[] {
  const { PATH, NODE_COMPILE_CACHE } = process.env;
  const env = { PATH: `${folder}:${PATH}`, NODE_COMPILE_CACHE, HOME: folder, TERM: 'dumb' };
  return execFileSync(shell, args, { encoding: 'utf8', env, cwd: folder, timeout: 120_000 })
    .replace(/\n+$/, '')
    .split('\n');
}

/** What a shell must complete to which word. The last one is a file. */
const COMPLETED: readonly [line: string, word: string][] = [
  ['bundoc col', 'collections'],
  ['bundoc query project notes --wh', '--where'],
  ['bundoc import project notes.json --fo', '--format'],
  ['bunkms key cr', 'create'],
  ['bundoc restore sa', 'saved.backup'],
];
const LINES = COMPLETED.map(([line]) => line);

it('bash completes sub-commands and options of both commands', () => {
  const script = `
    source <(bundoc completion bash)
    source <(bunkms completion bash)
    complete -p bundoc
    for line; do
      COMP_WORDS=($line); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _\${COMP_WORDS[0]}; echo "\${COMPREPLY[*]}"
    done`;
  // The function leaves files to the shell, and the last line of the output is empty for them.
  const words = COMPLETED.slice(0, -1).map(([, word]) => word);
  expect(run('bash', ['--norc', '-c', script, 'bash', ...LINES])).toEqual([
    'complete -o bashdefault -o default -F _bundoc bundoc',
    ...words,
  ]);
});

describe('zsh', needs('zsh'), () => {
  /** The command lines after the Tab key, from a shell in a pseudo-terminal. */
  const typed = (lines: readonly string[]) => {
    // A key binding prints the current line and clears it. The prompt differs from the text that sets it.
    const settings = `autoload -Uz compinit && compinit -D -u
      source <(bundoc completion zsh)
      source <(bunkms completion zsh)
      show() { print -r -- "<$BUFFER>"; BUFFER= }
      zle -N show
      bindkey "^X" show
      PROMPT="REA""DY>"`;
    const words = lines.map((line) => `'${line}'`).join(' ');
    const script = `
      zmodload zsh/zpty
      zpty terminal zsh -f -i
      zpty -w terminal '${settings.replaceAll('\n', ';')}'
      zpty -r terminal answer '*READY>*'
      for line in ${words}; do
        zpty -n -w terminal $line$'\\t\\x18'
        zpty -r terminal answer '*<*>*'
        print -r -- \${\${answer##*<}%%>*}
      done`;
    return run(String(pathOf('zsh')), ['-f', '-c', script]);
  };

  it('completes sub-commands, options and file names, and leaves other words unchanged', () => {
    const completed = COMPLETED.map(([line, word]) => `${line.replace(/\S+$/, word)} `);
    expect(typed([...LINES, 'bunkms key nothing'])).toEqual([...completed, 'bunkms key nothing']);
  });
});

describe('fish', needs('fish'), () => {
  it('completes sub-commands, options and file names, and shows descriptions', () => {
    const asked = LINES.map((line) => `complete -C '${line}'`).join('\n');
    const script = `bundoc completion fish | source\nbunkms completion fish | source\n${asked}`;
    const offered = run(String(pathOf('fish')), ['--no-config', '-c', script]);
    expect(offered.map((line) => line.split('\t')[0])).toEqual(COMPLETED.map(([, word]) => word));
    expect(offered[1]).toMatch(/^--where\tthe condition/);
  });
});

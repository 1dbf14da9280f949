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
  const env = { PATH: `${folder}:${process.env['PATH']}`, HOME: folder, TERM: 'dumb' };
  return execFileSync(shell, args, { encoding: 'utf8', env, cwd: folder, timeout: 120_000 })
    .replace(/\n+$/, '')
    .split('\n');
}

it('bash completes a sub-command and its options', () => {
  const script = `
    source <(bundoc completion bash)
    offer() {
      COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bundoc; echo "\${COMPREPLY[*]}"
    }
    complete -p bundoc
    offer bundoc col
    offer bundoc query project notes --wh`;
  expect(run('bash', ['--norc', '-c', script])).toEqual([
    'complete -o bashdefault -o default -F _bundoc bundoc',
    'collections',
    '--where',
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

  it('completes sub-commands and options of both commands, and file names', () => {
    const lines = ['bundoc col', 'bundoc query project notes --wh', 'bunkms key cr', 'bundoc restore sa'];
    expect(typed(lines)).toEqual([
      'bundoc collections ',
      'bundoc query project notes --where ',
      'bunkms key create ',
      'bundoc restore saved.backup ',
    ]);
  });

  it('leaves a word unchanged when no command begins with it', () => {
    expect(typed(['bunkms key nothing'])).toEqual(['bunkms key nothing']);
  });
});

describe('fish', needs('fish'), () => {
  /** The completions offered for each line, without descriptions. */
  const offered = (...lines: string[]) => {
    const asked = lines.map((line) => `complete -C '${line}'; echo ==`).join('\n');
    const sources = 'bundoc completion fish | source\nbunkms completion fish | source';
    const printed = run(String(pathOf('fish')), ['--no-config', '-c', `${sources}\n${asked}`]);
    const groups = printed.join('\n').split(/^==$/m).slice(0, lines.length);
    return groups.map((group) => group.split('\n').flatMap((line) => line.split('\t')[0] || []));
  };

  it('completes sub-commands and options of both commands, and file names', () => {
    expect(
      offered('bundoc col', 'bunkms ke', 'bunkms key cr', 'bundoc restore sa').map((words) =>
        words.toSorted(),
      ),
    ).toEqual([['collections'], ['kek', 'key'], ['create'], ['saved.backup']]);
    const [described] = run(String(pathOf('fish')), [
      '--no-config',
      '-c',
      'bundoc completion fish | source; complete -C "bundoc query project notes --wh"',
    ]);
    expect(described).toMatch(/^--where\tthe condition/);
  });
});

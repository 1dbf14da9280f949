import { PROGRAM as BUNDOC } from '@bundoc/bundoc/cli/program';
import { PROGRAM as BUNKMS } from '@bundoc/bunkms/cli/program';
import { type Command, type ProgramSpec, runProgram } from '@bundoc/shared/cli/command';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { describe, expect, it } from 'vitest';

/** Commands without subcommands, with the words that name them. */
function leavesOf(command: Command, words: readonly string[] = []): [words: readonly string[], Command][] {
  if (command.commands.length === 0) return [[words, command]];
  return command.commands.flatMap((one) => leavesOf(one as Command, [...words, one.name()]));
}

/** A program whose commands need no arguments and do nothing, except `doctor`. */
function idle(spec: ProgramSpec): ProgramSpec & { readonly names: readonly (readonly string[])[] } {
  const names: (readonly string[])[] = [];
  const calm = (program: Command) => {
    for (const [words, leaf] of leavesOf(program)) {
      names.push(words);
      if (words[0] === 'doctor') continue;
      for (const argument of leaf.registeredArguments) argument.argOptional();
      for (const option of leaf.options) option.makeOptionMandatory(false);
      leaf.action(() => undefined);
    }
  };
  return { ...spec, names, commands: [...spec.commands, calm] };
}

describe.each([
  { spec: BUNDOC, given: 'BUNDOC_DATADIR', meant: 'BUNDOC_DATA_DIR' },
  { spec: BUNKMS, given: 'BUNKMS_DATADIR', meant: 'BUNKMS_DATA_DIR' },
])('$spec.name', ({ spec, given, meant }) => {
  const sentence = `unknown variables are ignored: ${given} (did you mean ${meant}?)`;
  const program = idle(spec);
  const run = (words: readonly string[], environment: Record<string, string>) =>
    capturedRun(() => runProgram(program, words, environment));

  it('every command warns of a mistyped variable, and suggests the one that is meant', async () => {
    await run(['--help'], {});
    const names = program.names.filter(([first]) => first !== 'doctor');
    expect(names.length).toBeGreaterThan(15);
    for (const words of names) {
      const { code, stderr } = await run(words, { [given]: 'elsewhere' });
      expect([words, code, stderr]).toEqual([words, 0, `${spec.name}: ${sentence}\n`]);
      expect([words, (await run(words, { [meant]: 'here' })).stderr]).toEqual([words, '']);
    }
  });

  it('doctor has a mistyped variable among its findings, and does not say that the variables are valid', async () => {
    const { stdout, stderr } = await run(['doctor', '--json'], { [given]: 'elsewhere' });
    expect(stderr).not.toContain(sentence);
    const { findings } = JSON.parse(stdout) as { findings: object[] };
    expect(findings).toContainEqual(
      expect.objectContaining({ check: 'config', verdict: 'warn', found: sentence }),
    );
    expect(stdout).not.toContain('the variables are valid');
  });
});

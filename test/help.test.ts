import { PROGRAM as BUNDOC } from '@bundoc/bundoc/cli/program';
import { PROGRAM as BUNKMS } from '@bundoc/bunkms/cli/program';
import { type Command, type ProgramSpec, programOf } from '@bundoc/shared/cli/command';
import { describe, expect, it } from 'vitest';

/** The help of a program and of each of its commands, by their full names. */
function helps(spec: ProgramSpec, width: number): [name: string, help: string][] {
  const all = (command: Command, name: string): [string, string][] => {
    let help = '';
    command.configureOutput({
      getOutHelpWidth: () => width,
      writeOut: (text) => {
        help += text;
      },
    });
    command.outputHelp();
    return [[name, help], ...command.commands.flatMap((one) => all(one as Command, `${name} ${one.name()}`))];
  };
  return all(programOf(spec, {}), spec.name);
}

describe.each([60, 80])('the help on a terminal of %i columns', (width) => {
  it.each([BUNDOC, BUNKMS])('of $name fits the width, for each command', (spec) => {
    const found = helps(spec, width);
    expect(found.length).toBeGreaterThan(20);
    const wide = found.flatMap(([name, help]) =>
      help
        .split('\n')
        .filter((line) => line.length > width)
        .map((line) => `${name}: ${line}`),
    );
    expect(wide).toEqual([]);
  });
});

it('the help of a program names each command at the beginning of a line, with its description beside it', () => {
  const help = helps(BUNDOC, 80)[0]?.[1] ?? '';
  expect(help).toMatch(/^ {2}put {12}makes or replaces a document by the text of a file, to the byte$/m);
  expect(help).toMatch(
    /^ {2}verify-backup {2}checks that a backup is complete and unchanged, without a key;\n {17}needs/m,
  );
});

it('the help of a command puts the description of a long option below its name', () => {
  const help = new Map(helps(BUNKMS, 60)).get('bunkms token issue');
  expect(help).toMatch(/^ {2}--may-issue-scope <scopes>\n {28}scopes of the tokens that it may$/m);
  expect(help).toMatch(/^ {2}docs:read +read documents, run queries and\n {23}follow changes$/m);
});

it.each([BUNDOC, BUNKMS])('$name takes no option of a command for the value of another one', async (spec) => {
  const refusals: string[] = [];
  const refused = (command: Command, path: readonly string[]): string[][] => {
    command.configureOutput({ writeErr: (text) => refusals.push(text) });
    const own = command.options
      .filter(({ required }) => required)
      .map(({ long }) => [...path, String(long), '--json']);
    return [...own, ...command.commands.flatMap((one) => refused(one as Command, [...path, one.name()]))];
  };
  const program = programOf(spec, {});
  const lines = refused(program, []);
  expect(lines.length).toBeGreaterThan(20);
  for (const line of lines)
    await expect(program.parseAsync(line, { from: 'user' })).rejects.toMatchObject({
      code: 'commander.invalidArgument',
    });
  expect(refusals).toEqual(
    lines.map((line) =>
      expect.stringContaining(
        `'--json' is invalid. That is an option: the value of ${line.at(-2)} is missing.`,
      ),
    ),
  );
});

import { type AddCommands, command } from '@bundoc/shared/cli/command';
import { faultFound } from '@bundoc/shared/cli/errors';
import { print } from '@bundoc/shared/cli/print';
import { withFolder } from './open-data.ts';

/** `bundoc carry`: copies everything that only the log has into the folders of the projects. Needs no key. */
export const addCarryCommand: AddCommands = (program, environment) => {
  command(
    program,
    'carry',
    "copies the commits that only the log has into their projects' folders, without any key",
  ).action(async (options) => {
    const stuck = await withFolder(environment, ({ engine }) => engine.carryAll());
    print(options, { stuck }, () =>
      stuck.map((one) => `${one}  its folder cannot be written: its parts of the log stay in log/stuck`),
    );
    const but = stuck.length === 0 ? '' : ' but those above';
    if (!options.json) console.error(`bundoc: every folder of a project${but} is complete`);
    if (stuck.length > 0) throw faultFound();
  });
};

import type { Environment } from '@bundoc/shared/runtime/config';
import { withFolder } from './open-data.ts';

/**
 * Copies everything that only the log has into the folders of the projects. Needs no key.
 *
 * @returns true when all of it reached every project's folder.
 */
export async function carry(environment: Environment, { json }: { readonly json?: true }): Promise<boolean> {
  const stuck = await withFolder(environment, ({ engine }) => engine.carryAll());
  if (json) console.log(JSON.stringify({ stuck }));
  else {
    for (const one of stuck)
      console.log(`${one}  its folder cannot be written: its parts of the log stay in log/stuck`);
    const but = stuck.length === 0 ? '' : ' but those above';
    console.error(`bundoc: every folder of a project${but} is complete`);
  }
  return stuck.length === 0;
}

import type { MarkSetAside } from '../engine/moves/set-aside.ts';

/** Reports the file or the text of a marker that a command has set aside. */
export function printSetAside({ project, file, text }: MarkSetAside): void {
  const where = file === undefined ? `: ${text}` : `: it is in set-aside/${file}`;
  console.error(`bundoc: a mark of ${project} that BunKMS does not confirm was set aside${where}`);
}

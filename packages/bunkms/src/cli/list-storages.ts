import { type JsonOption, print, rowLine } from '@bundoc/shared/cli/print';
import { type Column, Table } from '@bundoc/shared/cli/table';
import type { Environment } from '@bundoc/shared/process/config';
import { listStorages, type StorageSummary } from '../keys/list-storages.ts';
import { withKeys } from './open-kms.ts';

const COLUMNS: readonly Column<StorageSummary>[] = [
  { head: 'storage', cell: ({ id }) => id },
  { head: 'generation', cell: ({ generation, damaged }) => (damaged ? 'damaged' : (generation ?? '-')) },
  { head: 'keys', cell: ({ keys }) => String(keys), align: 'right' },
  { head: 'last seen', cell: ({ last_seen: lastSeen }) => lastSeen ?? '-' },
];

/**
 * Prints the storages: a table on a terminal, otherwise an id on each line. Damaged keys, whose holder is
 * unknown, are named on a terminal and with `--json`.
 */
export async function printStorages(environment: Environment, options: JsonOption): Promise<void> {
  const { storages, damaged } = await withKeys(environment, listStorages);
  print(options, { storages, ...(damaged.length === 0 ? {} : { damaged }) }, () =>
    process.stdout.isTTY
      ? [...new Table(COLUMNS).lines(storages), ...damaged.map((name) => rowLine(name, 'damaged'))]
      : storages.map(({ id }) => id),
  );
}

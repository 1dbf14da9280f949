import type { Figure, Group } from '@bundoc/client/query';
import { type AddCommands, collect, each, parserFor } from '@bundoc/shared/cli/command';
import { CommandError } from '@bundoc/shared/cli/errors';
import type { Column } from '@bundoc/shared/cli/table';
import { rowWriter } from './output.ts';
import { orNone, readCondition, requireWhole, textAt, warnOfNone } from './query.ts';
import { collectionName, onProject, openProject, stopSignal } from './service-client.ts';

const OPERATIONS = ['sum', 'avg', 'min', 'max', 'distinct', 'countDistinct'] as const;
const FORMS = `name=count, name=op:field (op: ${OPERATIONS.join(', ')}), or name=percentile:field:percent`;

/** `p95=percentile:ms:95`, by its name. */
const figure = parserFor(FORMS, (text): [string, Figure] | undefined => {
  const [, name, op, field, percent] = /^(\w+)=(\w+)(?::([^:]+)(?::([\d.]+))?)?$/.exec(text) ?? [];
  if (name === undefined) return undefined;
  if (op === 'count') return field === undefined ? [name, { op }] : undefined;
  if (field === undefined) return undefined;
  if (op === 'percentile')
    return percent === undefined ? undefined : [name, { op, field, percent: Number(percent) }];
  const known = OPERATIONS.find((one) => one === op);
  return known === undefined || percent !== undefined ? undefined : [name, { op: known, field }];
});

/** `bundoc aggregate`: prints figures of documents by group. */
export const addAggregateCommand: AddCommands = (program, environment) => {
  onProject(program, 'aggregate', 'prints figures of documents, by group: sums, averages, percentiles, …')
    .argument('<collection>', 'its name', collectionName)
    .option('--figure <name=op:field>', `${FORMS}; may be repeated`, each(figure), [])
    .option('--group-by <paths>', 'up to two, separated by commas', collect, [])
    .option(
      '--where <json>',
      'the condition on documents (docs/query.md); - for standard input, @file for a file',
    )
    .option('--having <json>', 'the condition on the figures of a group, by their names')
    .action(async (project, name, options) => {
      const where = await readCondition(options.where);
      const having = await readCondition(options.having, '--having');
      const figures = Object.fromEntries(options.figure);
      const names = Object.keys(figures);
      if (names.length === 0) throw new CommandError(`give at least one --figure: ${FORMS}`);
      if (names.length < options.figure.length)
        throw new CommandError('--figure: each needs a name of its own');
      const collection = (await openProject(environment, options, project)).collection(name);
      const unreadable: string[] = [];
      const groups = await collection.aggregate(
        { where, having, figures, groupBy: orNone(options.groupBy) },
        { signal: stopSignal(), onUnreadable: (ids) => unreadable.push(...ids) },
      );
      const column = (head: string, path: readonly string[]): Column<Row> => ({
        head,
        cell: ({ text }) => textAt(text, path),
      });
      const columns = [
        ...options.groupBy.map((path) => column(path, ['group', path])),
        ...names.map((head) => column(head, ['figures', head])),
      ];
      await rowWriter<Row>({ columns, json: ({ text }) => text }, options)(groups);
      if (groups.length === 0) await warnOfNone(collection, project);
      requireWhole(unreadable);
    });
};

type Row = Group<Readonly<Record<string, Figure>>>;

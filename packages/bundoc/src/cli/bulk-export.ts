import { existsSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { makeFolder } from '@bundoc/shared/files/make-folder';
import { z } from 'zod';
import { type ExportOptions, type ExportProgress, exportDocuments } from '../operations/export-documents.ts';
import { ResumeFile } from '../operations/resume-file.ts';
import { write as writeOut } from './output.ts';
import { collectionName, onProject, serviceClient, stopSignal } from './service-client.ts';
import { createTransferBar } from './transfer-bar.ts';

const stateSchema = z.strictObject({
  format: z.literal(1),
  project: projectIdSchema,
  collection: z.string().nullable(),
  from: z.string().nullable(),
  deletions: z.boolean(),
  bytes: z.int().nonnegative(),
  done: z.strictObject({
    since: z.string(),
    documents: z.int().nonnegative(),
    deletions: z.int().nonnegative(),
    unreadable: z.array(z.string()).readonly(),
  }),
});

/**
 * `bundoc export`: writes a project's documents as NDJSON into a file, or to standard output for `-`. The
 * file gets its name once it is complete. A repeated command resumes an interrupted export.
 */
export const addExportCommand: AddCommands = (program, environment) => {
  onProject(
    program,
    'export',
    'writes the documents of a project as NDJSON; run it again to continue an interrupted export',
  )
    .argument('<file>', '- for standard output')
    .option('--collection <name>', 'only this collection; by default all', collectionName)
    .option('--since <position>', 'changes since an earlier export, which printed this position')
    .option('--deletions', 'write deletions, too: _id, _collection and "_deleted":true')
    .action(async (project, path, options) => {
      const { collection, since: from, deletions: withDeletions = false } = options;
      const about = { project, collection, since: from, deletions: withDeletions, signal: stopSignal() };
      const bundoc = await serviceClient(environment, options);
      using bar = createTransferBar(undefined);
      let bytes = 0;
      const run = (from: Partial<ExportOptions>, write: ExportOptions['write']) =>
        exportDocuments(bundoc, {
          ...about,
          ...from,
          write: async (lines, progress) => {
            await write(lines, progress);
            bytes += lines.length;
            bar.update(bytes, progress.documents);
          },
        });
      const end = await (path === '-' ? run({}, (lines) => writeOut(lines)) : toFile(path, about, run));
      bar[Symbol.dispose]();
      const { documents, deletions, since, unreadable } = end;
      if (options.json) console.error(JSON.stringify({ project, documents, deletions, since, unreadable }));
      else console.error(`${counted(documents, 'document')}; what comes behind them: --since ${since}`);
      for (const name of unreadable) console.error(`does not open: ${name}`);
      if (unreadable.length > 0) throw faultFound();
    });
};

async function toFile(
  path: string,
  about: Pick<ExportOptions, 'project' | 'collection' | 'since' | 'deletions'>,
  run: (from: Partial<ExportOptions>, write: ExportOptions['write']) => Promise<ExportProgress>,
): Promise<ExportProgress> {
  if (existsSync(path)) throw new CommandError(`${path} already exists`);
  makeFolder(dirname(path));
  const partial = `${path}.partial`;
  const resume = new ResumeFile(`${path}.export-state`, stateSchema);
  const { project, deletions } = about;
  const same = { project, collection: about.collection ?? null, from: about.since ?? null, deletions };
  const earlier = existsSync(partial) ? await resume.read() : undefined;
  if (earlier !== undefined) {
    const { format: _format, done: _done, bytes: _bytes, ...of } = earlier;
    if (JSON.stringify(of) !== JSON.stringify(same))
      throw new CommandError(
        `${resume.path} is of another export, of ${of.project}: finish that one, or remove the file to start over`,
      );
  }
  const file = await open(partial, earlier === undefined ? 'w' : 'r+', 0o600);
  let bytes = earlier?.bytes ?? 0;
  let end: ExportProgress;
  try {
    if ((await file.stat()).size < bytes)
      throw new CommandError(`${partial} was changed: remove it and ${resume.path} to start over`);
    await file.truncate(bytes);
    end = await run({ done: earlier?.done }, async (lines, done) => {
      const page = Buffer.from(lines);
      for (let at = 0; at < page.length; )
        at += (await file.write(page, at, page.length - at, bytes + at)).bytesWritten;
      bytes += page.length;
      // Makes the lines durable before the position that follows them.
      await file.datasync();
      await resume.write({ format: 1, ...same, bytes, done });
    });
  } finally {
    await file.close();
  }
  // In this order, a crash in between leaves no position without the lines before it.
  await resume.remove();
  await rename(partial, path);
  return end;
}

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parse } from 'yaml';

const page = readFileSync(join(import.meta.dirname, '../docs/how-to/back-up-and-restore.md'), 'utf8');
const blocksOf = (language: string) =>
  Array.from(
    page.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm')),
    ([, text = '']) => text,
  );

/** The commands without paths, in order. */
const commandsOf = (text: string) =>
  Array.from(text.matchAll(/\bbundoc (backup --all|verify-backup)/g), ([command]) => command);

it('the units of systemd and the CronJob back up all projects, and then check the folder', () => {
  const [service = '', timer = ''] = blocksOf('ini');
  const [job] = blocksOf('yaml').map((text) => parse(text));
  expect([service, timer].map((unit) => /^# \/etc\/systemd\/system\/(\S+)$/m.exec(unit)?.[1])).toEqual([
    'bundoc-backup.service',
    'bundoc-backup.timer',
  ]);
  const { template } = job.spec.jobTemplate.spec;
  const [container] = template.spec.containers;
  const commands = ['bundoc backup --all', 'bundoc verify-backup'];
  expect([commandsOf(service), commandsOf(container.command.at(-1))]).toEqual([commands, commands]);
  const mounted = container.volumeMounts.map(({ name }: { name: string }) => name);
  expect(template.spec.volumes.map(({ name }: { name: string }) => name)).toEqual(mounted);
  expect([job.kind, job.spec.concurrencyPolicy]).toEqual(['CronJob', 'Forbid']);
});

import type { ComponentChildren } from 'preact';
import { Crumbs, Tabs } from '../shell/crumbs.tsx';
import { may } from '../shell/session.ts';
import { OpenProject } from './open-project.tsx';
import { places } from './places.ts';

interface FrameProps {
  readonly project: string;
  /** Steps below the project. */
  readonly steps?: Parameters<typeof Crumbs>[0]['steps'];
  readonly label: string;
  readonly here: string;
  readonly tabs: Parameters<typeof Tabs>[0]['tabs'];
  readonly children: () => ComponentChildren;
}

/** A view of a project that is open: the way to it, and what is beside it. */
function Frame({ project, steps = [], label, here, tabs, children }: FrameProps) {
  return (
    <>
      <Crumbs
        steps={[
          { name: 'Projects', href: places.projects() },
          { name: project, href: places.project(project) },
          ...steps,
        ]}
      />
      <OpenProject project={project}>
        {() => (
          <>
            <Tabs label={label} here={here} tabs={tabs} />
            {children()}
          </>
        )}
      </OpenProject>
    </>
  );
}

export function ProjectFrame({
  project,
  here,
  children,
}: {
  readonly project: string;
  readonly here: 'Collections' | 'Changes' | 'Operations' | 'Shred';
  readonly children: () => ComponentChildren;
}) {
  return (
    <Frame
      project={project}
      label="Views of the project"
      here={here}
      tabs={[
        ['Collections', places.project(project)],
        ['Changes', places.changes(project)],
        ['Operations', places.operations(project)],
        ...(may('docs:admin') ? [['Shred', places.shred(project)] as const] : []),
      ]}
    >
      {children}
    </Frame>
  );
}

export function CollectionFrame({
  project,
  collection,
  here,
  children,
}: {
  readonly project: string;
  readonly collection: string;
  readonly here: 'Documents' | 'Query' | 'Import' | 'Definition' | '';
  readonly children: () => ComponentChildren;
}) {
  return (
    <Frame
      project={project}
      steps={[{ name: collection, href: places.collection(project, collection) }]}
      label="Views of the collection"
      here={here}
      tabs={[
        ['Documents', places.collection(project, collection)],
        ['Query', places.query(project, collection)],
        ...(may('docs:write') ? [['Import', places.import(project, collection)] as const] : []),
        ['Definition', places.definition(project, collection)],
      ]}
    >
      {children}
    </Frame>
  );
}

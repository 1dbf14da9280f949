import type { ComponentChildren } from 'preact';
import { Crumbs, Tabs } from '../shell/crumbs.tsx';
import { may } from '../shell/session.ts';
import { OpenProject } from './open-project.tsx';
import { places } from './places.ts';

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
    <>
      <Crumbs
        steps={[
          { name: 'Projects', href: places.projects() },
          { name: project, href: places.project(project) },
        ]}
      />
      <OpenProject project={project}>
        {() => (
          <>
            <Tabs
              label="Views of the project"
              here={here}
              tabs={[
                ['Collections', places.project(project)],
                ['Changes', places.changes(project)],
                ['Operations', places.operations(project)],
                ...(may('docs:admin') ? [['Shred', places.shred(project)] as const] : []),
              ]}
            />
            {children()}
          </>
        )}
      </OpenProject>
    </>
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
    <>
      <Crumbs
        steps={[
          { name: 'Projects', href: places.projects() },
          { name: project, href: places.project(project) },
          { name: collection, href: places.collection(project, collection) },
        ]}
      />
      <OpenProject project={project}>
        {() => (
          <>
            <Tabs
              label="Views of the collection"
              here={here}
              tabs={[
                ['Documents', places.collection(project, collection)],
                ['Query', places.query(project, collection)],
                ...(may('docs:write') ? [['Import', places.import(project, collection)] as const] : []),
                ['Definition', places.definition(project, collection)],
              ]}
            />
            {children()}
          </>
        )}
      </OpenProject>
    </>
  );
}

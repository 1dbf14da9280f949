import { hasCode } from '@bundoc/client/error';
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { Empty, Fault, Head, Loading, Name } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { onSignOut } from '../shell/session.ts';
import { places } from './places.ts';

/** Projects that this user has opened. */
const entered = new Set<string>();
onSignOut(() => entered.clear());

/** Notes that the user agreed to open a project. */
export function enter(project: string): void {
  entered.add(project);
}

/**
 * Shows the view of a project once its key is in memory. Before that, it warns that opening the project
 * fetches its key, which adds a CRITICAL record. So merely browsing adds none.
 */
export function OpenProject({
  project,
  children,
}: {
  readonly project: string;
  readonly children: () => ComponentChildren;
}) {
  const [, setRound] = useState(0);
  const isEntered = entered.has(project);
  const known = useRequest(isEntered ? undefined : project, async (signal) => {
    const page = await bundoc.projectsPage({ prefix: project, pageSize: 1, summary: true, signal });
    const summary = page.summaries.get(project);
    // Why a project is not listed: it was moved or destroyed, or does not exist.
    if (summary === undefined) await bundoc.project(project).info({ signal });
    return { isInUse: summary === undefined || summary.key_until !== undefined };
  });
  if (isEntered) return <>{children()}</>;
  const title = <Name text={project} />;
  if (known.error !== undefined)
    return (
      <>
        <Head title={title} />
        {hasCode(known.error, 'project_not_found') ? (
          <Empty title="The project does not exist">
            <a href={places.projects()}>Show all projects</a>
          </Empty>
        ) : (
          <Fault error={known.error} retry={known.reload} />
        )}
      </>
    );
  if (known.data === undefined) return <Loading what="the project" />;
  if (known.data.isInUse) return <>{children()}</>;
  return (
    <>
      <Head title={title} lead="This project is closed." />
      <div class="panel announcement">
        <p>
          To open it, Bundoc fetches its key from BunKMS. That adds <strong>one CRITICAL record</strong> to
          the audit chain, with the name of the key and Bundoc as the actor. Further requests add none while
          the key is in memory.
        </p>
        <button
          type="button"
          class="primary"
          onClick={() => {
            enter(project);
            setRound((round) => round + 1);
          }}
        >
          Open the project
        </button>
      </div>
    </>
  );
}

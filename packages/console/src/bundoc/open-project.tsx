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

/**
 * Shows a project's view once its key is in memory. Otherwise says first that opening it has its key fetched,
 * which is a CRITICAL record: nobody makes one by looking around.
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
    const page = await bundoc.projectsPage({ prefix: project, limit: 1, summary: true, signal });
    return { summary: page.summaries.get(project) };
  });
  const enter = () => {
    entered.add(project);
    setRound((round) => round + 1);
  };
  if (isEntered) return <>{children()}</>;
  if (known.error !== undefined) return <Fault error={known.error} retry={known.reload} />;
  if (known.data === undefined) return <Loading what="the project" />;
  const { summary } = known.data;
  if (summary === undefined)
    return (
      <Empty title="There is no such project, or this token is not for it">
        <a href={places.projects()}>All projects</a>
      </Empty>
    );
  if (summary.key_until !== undefined) return <>{children()}</>;
  return (
    <>
      <Head title={<Name text={project} />} lead="This project is closed." />
      <div class="panel announcement">
        <p>
          To open it, Bundoc fetches its key from BunKMS. That adds <strong>one CRITICAL record</strong> to
          the audit chain, with the name of the key and Bundoc as the one who asked. Looking around afterwards
          adds none while the key is in memory.
        </p>
        <button type="button" class="primary" onClick={enter}>
          Open the project
        </button>
      </div>
    </>
  );
}

import type { Change } from '@bundoc/client';
import { hasCode } from '@bundoc/client/error';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Badge, Empty, Fault, Head, Name, Table } from '../parts/basics.tsx';
import { TextField } from '../parts/fields.tsx';
import { time } from '../parts/format.ts';
import { isReachable } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { places } from './places.ts';
import { ProjectFrame } from './project-frame.tsx';

/** Maximum changes on the screen. */
const KEPT = 500;

interface Seen extends Change<Record<string, unknown>> {
  readonly number: number;
  readonly at: string;
}

/** The changes of a project, live. */
export function ChangesView({ project = '' }: { readonly project?: string }) {
  return (
    <ProjectFrame project={project} here="Changes">
      {() => <Followed key={project} project={project} />}
    </ProjectFrame>
  );
}

/** The changes of a project, or of one collection, since the view opened: the latest first. */
function useChanges(project: string, collection: string) {
  const [isLive, setIsLive] = useState(true);
  const [seen, setSeen] = useState<readonly Seen[]>([]);
  const [error, setError] = useState<unknown>();
  /** Where to resume after a pause, so that no change is missed. */
  const since = useRef('now');
  const number = useRef(0);

  useEffect(() => {
    if (!isLive) return;
    const stop = new AbortController();
    const { signal } = stop;
    const feed = bundoc.project(project);
    const follow = async () => {
      if (since.current === 'now') since.current = (await feed.changesPage({ since: 'now', signal })).since;
      signal.throwIfAborted();
      const only = collection === '' ? undefined : collection;
      const following = feed.changes({ since: since.current, collection: only, signal });
      for await (const change of following) {
        signal.throwIfAborted();
        since.current = following.since ?? since.current;
        const next = { ...change, number: number.current++, at: new Date().toISOString() };
        setSeen((before) => [next, ...before].slice(0, KEPT));
      }
    };
    follow().catch((thrown: unknown) => {
      if (stop.signal.aborted) return;
      setIsLive(false);
      setError(thrown);
    });
    return () => stop.abort();
  }, [isLive, project, collection]);

  const setLive = (to: boolean) => {
    setError(undefined);
    setIsLive(to);
  };
  const restart = () => {
    since.current = 'now';
    setLive(true);
  };
  return { isLive, seen, error, setLive, restart };
}

function Followed({ project }: { readonly project: string }) {
  const [collection, setCollection] = useState('');
  const [wanted, setWanted] = useState('');
  const { isLive, seen, error, setLive, restart } = useChanges(project, wanted);
  const isGone = hasCode(error, 'position_gone');
  return (
    <>
      <Head
        title="Changes"
        lead={
          <>
            of <Name text={project} />, each document at its latest change
          </>
        }
        actions={
          <button
            type="button"
            class={isLive ? '' : 'primary'}
            onClick={() => setLive(!isLive)}
            disabled={isGone}
          >
            {isLive ? 'Pause' : 'Resume'}
          </button>
        }
      />
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          setWanted(collection.trim());
        }}
      >
        <TextField label="Only this collection" value={collection} onInput={setCollection} />
        <button type="submit">Filter</button>
        <span class="live" role="status">
          <Badge kind={isLive && isReachable.value ? 'good' : 'warn'}>
            {isLive ? (isReachable.value ? 'live' : 'waiting for Bundoc') : 'paused'}
          </Badge>
        </span>
      </form>
      {isGone ? (
        <div class="fault" role="alert">
          <p class="fault-title">The position to resume from is too old</p>
          <p>Later deletions are no longer remembered, so the feed would miss them. Start again from now.</p>
          <button type="button" onClick={restart}>
            Start from now
          </button>
        </div>
      ) : (
        <Fault error={error} retry={() => setLive(true)} />
      )}
      {seen.length === 0 ? (
        <Empty title={isLive ? 'No changes yet' : 'No changes before the pause'}>
          {isLive ? 'Changes appear here live.' : 'Resume to see all changes since.'}
        </Empty>
      ) : (
        <Changes project={project} seen={seen} />
      )}
    </>
  );
}

function Changes({ project, seen }: { readonly project: string; readonly seen: readonly Seen[] }) {
  return (
    <Table label="Changes" heads={['Seen (UTC)', 'What', 'Collection', 'Document', 'Revision']}>
      {seen.map(({ number, at, deleted, collection, id, rev }) => (
        <tr key={number}>
          <td class="when">{time(at)}</td>
          <td>{deleted ? <Badge kind="warn">deleted</Badge> : <Badge kind="accent">written</Badge>}</td>
          <td>
            <a href={places.collection(project, collection)}>
              <Name text={collection} max={40} />
            </a>
          </td>
          <td>
            {deleted ? (
              <Name text={id} max={60} />
            ) : (
              <a href={places.document(project, collection, id)}>
                <Name text={id} max={60} />
              </a>
            )}
          </td>
          <td>
            <code>{rev}</code>
          </td>
        </tr>
      ))}
    </Table>
  );
}

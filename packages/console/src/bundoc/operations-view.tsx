import type { MovedProject, MoveProgress } from '@bundoc/client/move';
import { useState } from 'preact/hooks';
import { Badge, CopyLine, Fault, Figure, Head, Name, StopButton } from '../parts/basics.tsx';
import { TypedConfirmation } from '../parts/dialogs.tsx';
import { fileName } from '../parts/download.ts';
import { openFileSink } from '../parts/file-sink.ts';
import { bytes, count, plural, visible } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { ProjectFrame } from './project-frame.tsx';

/** Operations on a whole project: re-sealing, backup, move. */
export function OperationsView({ project = '' }: { readonly project?: string }) {
  return (
    <ProjectFrame project={project} here="Operations">
      {() => <Operations key={project} project={project} />}
    </ProjectFrame>
  );
}

function Operations({ project }: { readonly project: string }) {
  const mayAdminister = may('docs:admin');
  return (
    <>
      <Head
        title="Operations"
        lead={
          <>
            on the whole project <Name text={project} />
          </>
        }
      />
      <Reseal project={project} />
      {mayAdminister ? (
        <>
          <Backup project={project} />
          <Move project={project} />
        </>
      ) : (
        <p class="hint">To back up, move or shred a project, use a token with docs:admin.</p>
      )}
    </>
  );
}

const RESEAL_EVERY_MS = 2_000;

/** The progress of re-sealing documents under the present key version. */
function Reseal({ project }: { readonly project: string }) {
  // A request keeps a project open, so the view sends none when no operation runs.
  const info = useRequest(
    project,
    (signal) => bundoc.project(project).info({ signal }),
    RESEAL_EVERY_MS,
    (last) => last !== undefined && last.key.documents_to_reseal > 0,
  );
  const { data } = info;
  return (
    <section class="panel" aria-labelledby="reseal">
      <div class="section-head">
        <h2 id="reseal">Re-seal</h2>
        <button type="button" class="small" onClick={info.reload}>
          Reload
        </button>
      </div>
      <p class="hint">
        After a rotation of the key, Bundoc seals the documents again under the new version, in the
        background.
      </p>
      <Fault error={info.error} retry={info.reload} />
      {data === undefined ? null : (
        <>
          <dl class="figures">
            <Figure name="Key version">{data.key.version}</Figure>
            <Figure name="Versions of the key">{data.key.versions.join(', ')}</Figure>
            <Figure name="To re-seal">
              {data.key.documents_to_reseal === 0 ? (
                <Badge kind="good">none</Badge>
              ) : (
                <>
                  {count(data.key.documents_to_reseal)}
                  <span class="muted"> of {plural(data.documents, 'document')}</span>
                </>
              )}
            </Figure>
          </dl>
          {data.key.documents_to_reseal === 0 ? null : (
            <progress
              max={Math.max(1, data.documents)}
              value={Math.max(0, data.documents - data.key.documents_to_reseal)}
              aria-label="Documents under the present version"
            />
          )}
        </>
      )}
    </section>
  );
}

/** Streams a sealed backup to a file. It is unreadable without the key. */
function Backup({ project }: { readonly project: string }) {
  const { isBusy, error, run, stop } = useAction();
  const [written, setWritten] = useState<number>();
  const [isDone, setIsDone] = useState(false);
  const file = `${fileName(project)}.bundoc-backup`;
  const backUp = () =>
    run(async (signal) => {
      const sink = await openFileSink(file, 'application/octet-stream');
      if (sink === undefined) return;
      setIsDone(false);
      setWritten(0);
      let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
      try {
        const stream = await bundoc.project(project).backup({ signal });
        reader = stream.getReader();
        for (let sum = 0; ; ) {
          const { done, value } = await reader.read();
          signal.throwIfAborted();
          if (done) break;
          // `fetch` never returns shared memory.
          await sink.write(value as Uint8Array<ArrayBuffer>);
          sum += value.length;
          setWritten(sum);
        }
        await sink.close();
        setIsDone(true);
      } catch (thrown) {
        // Otherwise the service would keep the backup open.
        await Promise.all([sink.abandon(), reader?.cancel().catch(() => undefined)]);
        throw thrown;
      }
    });
  return (
    <section class="panel" aria-labelledby="backup">
      <h2 id="backup">Backup</h2>
      <p class="hint">
        A sealed copy of the project, as of the end of the backup. It cannot be read without the key.
      </p>
      <div class="toolbar under">
        <button type="button" disabled={isBusy} onClick={() => void backUp()}>
          {isBusy ? 'Backing up…' : 'Back up to a file'}
        </button>
        <StopButton isBusy={isBusy} onStop={stop} />
        {written === undefined || error !== undefined ? null : (
          <span role="status">
            {isDone ? 'Done: ' : ''}
            {bytes(written)}
            {isDone || isBusy ? '' : '. Stopped: no file was written.'}
          </span>
        )}
      </div>
      {isBusy ? <progress aria-label="Backup" /> : null}
      <Fault error={error} />
      <details>
        <summary>Check and restore a backup</summary>
        <p class="hint">
          Run these commands on the machine of Bundoc. The second one creates the project from the file, so
          the project must not exist. Its key must not be destroyed.
        </p>
        <CopyLine
          isReceipt={false}
          label="Copy the commands"
          text={`bundoc verify-backup ${file}\nbundoc restore ${file}`}
        />
      </details>
    </section>
  );
}

const STEPS: Readonly<Record<MoveProgress['step'], string>> = {
  copying: 'Copying',
  verifying: 'Verifying the copy',
  switching: 'Handing over',
};

/** Moves a project from files to the configured database, while it is in use. */
function Move({ project }: { readonly project: string }) {
  const { isBusy, error, run, stop } = useAction();
  const [progress, setProgress] = useState<MoveProgress>();
  const [moved, setMoved] = useState<MovedProject>();
  const move = () =>
    run(async (signal) => {
      setProgress(undefined);
      setMoved(await bundoc.project(project).move({ signal, onProgress: setProgress }));
    });
  return (
    <section class="panel" aria-labelledby="move">
      <h2 id="move">Move to PostgreSQL</h2>
      <p class="hint">
        Moves the project from files to the database that <code>BUNDOC_MOVE_TO</code> names. The project stays
        in use. To bring it back, back it up there and restore the backup here.
      </p>
      {moved === undefined ? (
        <>
          <TypedConfirmation
            name={project}
            what="project"
            action="Move"
            isBusy={isBusy}
            onConfirm={() => void move()}
          />
          {isBusy ? (
            <div class="toolbar under">
              <progress
                max={Math.max(1, progress?.of ?? 1)}
                value={progress?.documents ?? 0}
                aria-label="Move"
              />
              <span role="status">
                {progress === undefined
                  ? 'Beginning'
                  : `${STEPS[progress.step]}: ${count(progress.documents)} of ${count(progress.of)}`}
              </span>
              <button type="button" onClick={stop}>
                Stop
              </button>
            </div>
          ) : null}
        </>
      ) : (
        <p class="note" role="status">
          Moved to {visible(moved.to, 120)}. The former content of its folder is kept as{' '}
          <code>moved/{visible(moved.kept, 120)}</code>. Remove it once you have checked a new backup.
        </p>
      )}
      <Fault error={error} />
    </section>
  );
}

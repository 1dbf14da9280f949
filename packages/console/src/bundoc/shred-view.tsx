import type { DeletedProject } from '@bundoc/client';
import { useState } from 'preact/hooks';
import { CopyLine, Fault, Figure, Head, Name } from '../parts/basics.tsx';
import { TypedConfirmation } from '../parts/dialogs.tsx';
import { download } from '../parts/download.ts';
import { bytes, count, plural, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { may } from '../shell/session.ts';
import { places } from './places.ts';
import { ProjectFrame } from './project-frame.tsx';

/** Destroys a project and its key permanently. */
export function ShredView({ project = '' }: { readonly project?: string }) {
  const [deleted, setDeleted] = useState<DeletedProject>();
  if (deleted !== undefined) return <Shredded deleted={deleted} />;
  if (!may('docs:admin'))
    return <Head title="Shred" lead="This token may not delete projects: that needs docs:admin." />;
  return (
    <ProjectFrame project={project} here="Shred">
      {() => <Asked project={project} onDeleted={setDeleted} />}
    </ProjectFrame>
  );
}

function Asked({
  project,
  onDeleted,
}: {
  readonly project: string;
  readonly onDeleted: (deleted: DeletedProject) => void;
}) {
  const info = useRequest(project, (signal) => bundoc.project(project).info({ signal }));
  const { isBusy, error, run } = useAction();
  const shred = () => run(async () => onDeleted(await bundoc.deleteProject(project)));
  return (
    <>
      <Head
        title="Shred this project"
        lead={
          <>
            <Name text={project} /> is destroyed permanently.
          </>
        }
      />
      <Fault error={info.error} retry={info.reload} />
      <div class="panel danger-panel">
        {info.data === undefined ? null : (
          <dl class="figures">
            <Figure name="Documents">{count(info.data.documents)}</Figure>
            <Figure name="Collections">{count(info.data.collections)}</Figure>
            <Figure name="Sealed bytes">{bytes(info.data.bytes)}</Figure>
            <Figure name="Key versions">{count(info.data.key.versions.length)}</Figure>
          </dl>
        )}
        <ul class="plain">
          <li>
            BunKMS destroys its key
            {info.data === undefined ? '' : `, which has ${plural(info.data.key.versions.length, 'version')}`}
            . After that, no copy of the documents in any backup can be decrypted.
          </li>
          <li>Bundoc removes its documents, indexes and history. The id cannot be used again.</li>
          <li>The audit chain records it, and you get a receipt. This cannot be undone.</li>
        </ul>
        <TypedConfirmation
          name={project}
          what="project"
          action="Shred for ever"
          isBusy={isBusy}
          onConfirm={() => void shred()}
        />
        <Fault error={error} />
      </div>
    </>
  );
}

function Shredded({ deleted }: { readonly deleted: DeletedProject }) {
  const text = `${JSON.stringify(deleted, null, 2)}\n`;
  const receipt =
    deleted.key === undefined ? undefined : `${deleted.key.audit.seq}:${deleted.key.audit.hash}`;
  return (
    <>
      <Crumbs steps={[{ name: 'Projects', href: places.projects() }]} />
      <Head
        title="Shredded"
        lead={
          <>
            <Name text={deleted.project} /> was destroyed at {time(deleted.deleted_at)} UTC.
          </>
        }
        actions={
          <button
            type="button"
            class="primary"
            onClick={() => download(`shredded-${deleted.project}.json`, text)}
          >
            Download the receipt
          </button>
        }
      />
      <div class="panel">
        {receipt === undefined ? (
          <p>The key was destroyed before, so BunKMS gave no receipt this time.</p>
        ) : (
          <>
            <h2>Receipt</h2>
            <CopyLine text={receipt} />
            <p>
              Paste it into the audit view of BunKMS’s console, or give it to{' '}
              <code>bunkms audit verify --receipt</code>: the chain must always contain that record.
            </p>
          </>
        )}
        {deleted.key === undefined || deleted.key.kek_ids.length === 0 ? null : (
          <p class="muted">
            Wrapped copies of the key in old backups are gone once these KEKs are destroyed too:{' '}
            {deleted.key.kek_ids.map((id) => (
              <code key={id}>{id} </code>
            ))}
          </p>
        )}
      </div>
    </>
  );
}

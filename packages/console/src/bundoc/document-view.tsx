import type { ReplaceOptions } from '@bundoc/client/collection';
import { JsonText } from '@bundoc/client/document';
import { hasCode } from '@bundoc/client/error';
import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Editor } from '../editor/editor.tsx';
import { Empty, Fault, Head, Loading, Name } from '../parts/basics.tsx';
import { Confirmation } from '../parts/dialogs.tsx';
import { download, fileName } from '../parts/download.ts';
import { bytes, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { differingLines, faultOfText, type OwnText, ownText } from './document-text.ts';
import { draftOf, dropDraft, keepDraft } from './drafts.ts';
import { LargeText } from './large-text.tsx';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';
import { UpdateDialog } from './update-dialog.tsx';

/** Characters beyond which a text is read in slices, and not edited. */
const EDITABLE = 262_144;

interface DocumentPlace {
  readonly project: string;
  readonly collection: string;
  readonly id: string;
}

/** One document as the text that it is. */
export function DocumentView({ project = '', collection = '', id = '' }: Partial<DocumentPlace>) {
  return (
    <CollectionFrame project={project} collection={collection} here="">
      {() => (
        <Loaded key={`${project}/${collection}/${id}`} project={project} collection={collection} id={id} />
      )}
    </CollectionFrame>
  );
}

const read = async ({ project, collection, id }: DocumentPlace, signal?: AbortSignal) => {
  const document = await bundoc.project(project).collection(collection).get(id, { signal });
  return document === undefined ? undefined : ownText(document.text);
};

function Loaded(place: DocumentPlace) {
  const { project, collection, id } = place;
  const document = useRequest(`${project}/${collection}/${id}`, async (signal) => ({
    stored: await read(place, signal),
  }));
  if (document.error !== undefined && document.data === undefined)
    return (
      <>
        <Head title={<Name text={id} max={80} />} />
        <Fault error={document.error} retry={document.reload} />
      </>
    );
  if (document.data === undefined) return <Loading what="the document" />;
  const { stored } = document.data;
  if (stored === undefined)
    return (
      <>
        <Head title={<Name text={id} max={80} />} />
        <Empty title="There is no such document">
          <a href={places.collection(project, collection)}>Show all documents of the collection</a>
        </Empty>
      </>
    );
  return stored.text.length > EDITABLE ? (
    <Large place={place} stored={stored} />
  ) : (
    <Edited place={place} stored={stored} />
  );
}

function Lead({ stored }: { readonly stored: OwnText }) {
  const { _rev, _created, _updated } = stored.metadata;
  return (
    <>
      revision <code>{_rev}</code> · created {time(_created)} · changed {time(_updated)} UTC
    </>
  );
}

function Large({ place: { id }, stored }: { readonly place: DocumentPlace; readonly stored: OwnText }) {
  return (
    <>
      <Head
        title={<Name text={id} max={80} />}
        lead={<Lead stored={stored} />}
        actions={
          <button type="button" class="primary" onClick={() => download(`${fileName(id)}.json`, stored.text)}>
            Download
          </button>
        }
      />
      <p class="note">
        This document has {bytes(stored.text.length)}, which is too much to edit here. Read it in slices, or
        download it.
      </p>
      <LargeText text={stored.text} />
    </>
  );
}

/** A document that is edited: what is typed, what is stored, and what somebody else has stored meanwhile. */
function useEditing(place: DocumentPlace, stored: OwnText) {
  const { project, collection, id } = place;
  const key = places.document(project, collection, id);
  const { route } = useLocation();
  const documents = bundoc.project(project).collection(collection);
  const [base, setBase] = useState(stored);
  const draft = draftOf(key);
  const [begin, setBegin] = useState({ text: draft?.text ?? stored.text, version: 0 });
  const [text, setText] = useState(begin.text);
  const [rev, setRev] = useState(draft?.rev ?? stored.metadata._rev);
  const [theirs, setTheirs] = useState<OwnText | 'deleted'>();
  const [isSaved, setIsSaved] = useState(false);
  const { isBusy, error, run } = useAction();

  const attempt = (work: () => Promise<void>) =>
    run(async () => {
      try {
        await work();
      } catch (thrown) {
        if (!hasCode(thrown, 'precondition_failed')) throw thrown;
        // Somebody else has written: their text is shown beside this one, which stays.
        setTheirs((await read(place)) ?? 'deleted');
      }
    });
  /** What is stored is `to` now, and nothing that was typed is lost. */
  const settle = (to: OwnText) => {
    setBase(to);
    setRev(to.metadata._rev);
    setTheirs(undefined);
    dropDraft(key);
  };
  const showStored = (other: OwnText) => {
    settle(other);
    setBegin((before) => ({ text: other.text, version: before.version + 1 }));
    setText(other.text);
  };
  return {
    documents,
    base,
    begin,
    text,
    rev,
    theirs,
    isSaved,
    isBusy,
    error,
    fault: faultOfText(text),
    isChanged: text !== base.text || theirs !== undefined,
    change: (next: string) => {
      setText(next);
      setIsSaved(false);
      if (next === base.text) dropDraft(key);
      else keepDraft(key, next, rev);
    },
    save: (condition: ReplaceOptions) =>
      attempt(async () => {
        settle({ text, metadata: await documents.put(id, new JsonText(text), condition) });
        setIsSaved(true);
      }),
    remove: () =>
      attempt(async () => {
        await documents.delete(id, { ifMatch: rev });
        dropDraft(key);
        route(places.collection(project, collection));
      }),
    takeTheirs: showStored,
    updated: async () => {
      const now = await read(place);
      if (now === undefined) setTheirs('deleted');
      else showStored(now);
    },
  };
}

type Editing = ReturnType<typeof useEditing>;

function Edited({ place, stored }: { readonly place: DocumentPlace; readonly stored: OwnText }) {
  const { id } = place;
  const editing = useEditing(place, stored);
  const { base, text, rev, theirs, isSaved, isBusy, error, fault, isChanged, save, remove } = editing;
  const [isDeleting, setIsDeleting] = useState(false);
  const [isUpdating, setIsUpdating] = useState(false);
  const maySave = isChanged && fault === undefined && theirs === undefined;
  const saveOver = () => void save({ ifMatch: rev });
  return (
    <>
      <Head
        title={<Name text={id} max={80} />}
        lead={<Lead stored={base} />}
        actions={
          <>
            <button type="button" onClick={() => download(`${fileName(id)}.json`, text)}>
              Download
            </button>
            {may('docs:write') ? (
              <>
                <button type="button" class="danger quiet" onClick={() => setIsDeleting(true)}>
                  Delete
                </button>
                <button
                  type="button"
                  disabled={isChanged || isBusy}
                  title={isChanged ? 'Save your text first' : undefined}
                  onClick={() => setIsUpdating(true)}
                >
                  Update
                </button>
                <button type="button" class="primary" disabled={!maySave || isBusy} onClick={saveOver}>
                  {isBusy ? 'Saving…' : 'Save'}
                </button>
              </>
            ) : null}
          </>
        }
      />
      <Fault error={error} />
      {theirs === undefined ? null : <Conflict editing={editing} theirs={theirs} />}
      <Editors editing={editing} onSubmit={() => maySave && saveOver()} />
      <p class="editor-foot" role="status">
        {fault ??
          (isSaved && !isChanged ? 'Saved.' : isChanged ? 'Not saved yet.' : 'As stored, to the character.')}
      </p>
      {isUpdating ? (
        <UpdateDialog
          documents={editing.documents}
          id={id}
          onUpdated={editing.updated}
          onClose={() => setIsUpdating(false)}
        />
      ) : null}
      {isDeleting ? (
        <Confirmation
          title="Delete this document?"
          cancel="Keep it"
          confirm="Delete"
          onConfirm={() => {
            setIsDeleting(false);
            void remove();
          }}
          onClose={() => setIsDeleting(false)}
        >
          <p>
            <Name text={id} max={120} /> is deleted if nobody has changed it since. It cannot be brought back.
          </p>
        </Confirmation>
      ) : null}
    </>
  );
}

/** What to do where somebody else has written. */
function Conflict({
  editing: { fault, isBusy, save, takeTheirs },
  theirs,
}: {
  readonly editing: Editing;
  readonly theirs: OwnText | 'deleted';
}) {
  return (
    <div class="conflict" role="alert">
      <p>
        <strong>
          Somebody else has {theirs === 'deleted' ? 'deleted' : 'changed'} this document since you opened it.
        </strong>{' '}
        {theirs === 'deleted'
          ? 'Your text is kept.'
          : 'Your text is kept. “Stored now” shows what is stored.'}
      </p>
      <div class="actions">
        <button
          type="button"
          class="primary"
          disabled={fault !== undefined || isBusy}
          onClick={() =>
            void save(theirs === 'deleted' ? { ifNoneMatch: '*' } : { ifMatch: theirs.metadata._rev })
          }
        >
          {theirs === 'deleted' ? 'Store mine again' : 'Replace theirs with mine'}
        </button>
        {theirs === 'deleted' ? null : (
          <button type="button" onClick={() => takeTheirs(theirs)}>
            Take theirs
          </button>
        )}
      </div>
    </div>
  );
}

/** The text that is edited; beside it, where somebody else has written, theirs. */
function Editors({
  editing: { begin, text, theirs, change },
  onSubmit,
}: {
  readonly editing: Editing;
  readonly onSubmit: () => void;
}) {
  const other = theirs === 'deleted' ? undefined : theirs;
  return (
    <div class={other === undefined ? 'editors' : 'editors two'}>
      <section aria-label={other === undefined ? 'The document' : 'Yours'}>
        {other === undefined ? null : <h2>Yours</h2>}
        <Editor
          text={begin.text}
          version={String(begin.version)}
          label="Text of the document"
          isReadOnly={!may('docs:write')}
          marked={other === undefined ? [] : differingLines(text, other.text)}
          onChange={change}
          onSubmit={onSubmit}
        />
      </section>
      {other === undefined ? null : (
        <section aria-label="Stored now">
          <h2>Stored now</h2>
          <Editor
            text={other.text}
            version={other.metadata._rev}
            label="The text that is stored now"
            isReadOnly
            marked={differingLines(other.text, text)}
          />
        </section>
      )}
    </div>
  );
}

import { JsonText } from '@bundoc/client/document';
import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Editor } from '../editor/editor.tsx';
import { Fault, Head, Name } from '../parts/basics.tsx';
import { TextField } from '../parts/fields.tsx';
import { useAction } from '../parts/use-action.ts';
import { bundoc } from '../shell/api.ts';
import { faultOfText } from './document-text.ts';
import { draftOf, dropDraft, keepDraft } from './drafts.ts';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';

interface CollectionPlace {
  readonly project: string;
  readonly collection: string;
}

/** Writes a document that does not exist. */
export function NewDocumentView({ project = '', collection = '' }: Partial<CollectionPlace>) {
  return (
    <CollectionFrame project={project} collection={collection} here="">
      {() => <New key={`${project}/${collection}`} project={project} collection={collection} />}
    </CollectionFrame>
  );
}

const FIRST_TEXT = '{\n  \n}';

function New({ project, collection }: CollectionPlace) {
  const key = places.create(project, collection);
  const { route } = useLocation();
  const [id, setId] = useState('');
  const [begin] = useState(draftOf(key)?.text ?? FIRST_TEXT);
  const [text, setText] = useState(begin);
  const { isBusy, error, run } = useAction();
  const fault = faultOfText(text);
  const create = () =>
    run(async () => {
      const documents = bundoc.project(project).collection(collection);
      const content = new JsonText(text);
      const { _id } =
        id === '' ? await documents.create(content) : await documents.put(id, content, { ifNoneMatch: '*' });
      dropDraft(key);
      route(places.document(project, collection, _id), true);
    });
  return (
    <>
      <Head
        title="New document"
        lead={
          <>
            in <Name text={collection} />
          </>
        }
        actions={
          <button
            type="button"
            class="primary"
            disabled={fault !== undefined || isBusy}
            onClick={() => void create()}
          >
            {isBusy ? 'Creating…' : 'Create'}
          </button>
        }
      />
      <Fault error={error} />
      <div class="toolbar">
        <TextField
          label="Id"
          hint="Leave it empty for a new id that sorts by time."
          value={id}
          onInput={setId}
        />
      </div>
      <div class="editors">
        <section aria-label="The document">
          <Editor
            text={begin}
            version="new"
            label="Text of the new document"
            onChange={(next) => {
              setText(next);
              keepDraft(key, next, undefined);
            }}
            onSubmit={() => {
              if (fault === undefined) void create();
            }}
          />
        </section>
      </div>
      <p class="editor-foot" role="status">
        {fault ?? 'It is stored exactly as it stands here.'}
      </p>
    </>
  );
}

import type { CollectionInfo } from '@bundoc/client/definition';
import { useState } from 'preact/hooks';
import { Fault, Name } from '../parts/basics.tsx';
import { Confirmation, TypedConfirmation } from '../parts/dialogs.tsx';
import { count, plural } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { bundoc } from '../shell/api.ts';

interface Removed {
  readonly project: string;
  readonly collection: string;
  readonly info: CollectionInfo;
  readonly onRemoved: (what: string) => void;
}

/** Removes the definition of a collection, or the collection with its documents. */
export function RemovalPanel({ project, collection, info, onRemoved }: Removed) {
  const documents = bundoc.project(project).collection(collection);
  const [deleted, setDeleted] = useState<number>();
  const [isAsking, setIsAsking] = useState(false);
  const undefining = useAction();
  const dropping = useAction();
  const undefine = (rev: string) =>
    undefining.run(async () => {
      await documents.undefine({ ifMatch: rev });
      onRemoved('The definition was removed.');
    });
  const drop = () =>
    dropping.run(async (signal) => {
      setDeleted(0);
      const all = await documents.drop({ signal, onDeleted: setDeleted });
      onRemoved(`Dropped: ${plural(all, 'document')}.`);
    });
  return (
    <section class="panel danger-panel" aria-labelledby="removal">
      <h2 id="removal">Remove</h2>
      {info.rev === undefined ? null : (
        <div class="toolbar under">
          <button type="button" class="danger quiet" onClick={() => setIsAsking(true)}>
            Remove the definition
          </button>
          <span class="hint">Indexes, schema and time to live end. Documents stay.</span>
        </div>
      )}
      <p class="hint">
        Dropping the collection deletes {plural(info.documents, 'document')}, then the definition. It cannot
        be undone. If you leave this view meanwhile, the rest stays.
      </p>
      <TypedConfirmation
        name={collection}
        what="collection"
        action="Drop the collection"
        isBusy={dropping.isBusy}
        onConfirm={() => void drop()}
      />
      {deleted === undefined ? null : (
        <p role="status" class="hint">
          {count(deleted)} deleted.
        </p>
      )}
      <Fault error={dropping.error} />
      {isAsking ? (
        <Confirmation
          title="Remove this definition?"
          cancel="Keep it"
          confirm="Remove"
          isBusy={undefining.isBusy}
          error={undefining.error}
          onConfirm={() => void undefine(info.rev ?? '*')}
          onClose={() => setIsAsking(false)}
        >
          <p>
            <Name text={collection} max={120} /> keeps its documents. Queries scan all of them then, and no
            write is checked.
          </p>
        </Confirmation>
      ) : null}
    </section>
  );
}

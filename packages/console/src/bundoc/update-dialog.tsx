import type { Collection } from '@bundoc/client/collection';
import { JsonText } from '@bundoc/client/document';
import { useState } from 'preact/hooks';
import { Editor } from '../editor/editor.tsx';
import { Fault } from '../parts/basics.tsx';
import { Dialog } from '../parts/dialogs.tsx';
import { useAction } from '../parts/use-action.ts';
import { faultOfText } from './document-text.ts';
import { UPDATE_OPERATORS } from './query-text.ts';

/** Changes the document as it is stored now, by operators. */
export function UpdateDialog({
  documents,
  id,
  onUpdated,
  onClose,
}: {
  readonly documents: Collection;
  readonly id: string;
  readonly onUpdated: () => Promise<void>;
  readonly onClose: () => void;
}) {
  const [begin] = useState('{ "$set": {} }');
  const [text, setText] = useState(begin);
  const { isBusy, error, run } = useAction();
  const fault = faultOfText(text);
  const apply = () =>
    run(async (signal) => {
      await documents.update(id, new JsonText(text), { signal });
      await onUpdated();
      onClose();
    });
  return (
    <Dialog title="Update by operators" onClose={onClose}>
      <p class="hint">
        Changes the latest revision, so no change of others is lost. The rest of the text stays as it is.
      </p>
      <Editor
        text={begin}
        version="begin"
        label="Text of the update"
        isTall={false}
        words={UPDATE_OPERATORS}
        onChange={setText}
      />
      <p class="hint">{fault ?? 'A quote offers the operators.'}</p>
      <Fault error={error} />
      <div class="dialog-end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button
          type="button"
          class="primary"
          disabled={fault !== undefined || isBusy}
          onClick={() => void apply()}
        >
          {isBusy ? 'Updating…' : 'Update'}
        </button>
      </div>
    </Dialog>
  );
}

import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Dialog } from '../parts/dialogs.tsx';
import { TextField } from '../parts/fields.tsx';
import { session } from '../shell/session.ts';
import { enter } from './open-project.tsx';
import { places } from './places.ts';

const PROJECT = /^[a-z0-9][a-z0-9-]{0,62}$/;
const COLLECTION = /^[A-Za-z0-9_-]{1,128}$/;

/** The only project that the token is for, if there is one. */
function onlyProject(): string {
  const [name = '', ...others] = session.value?.claims.projects ?? [];
  return others.length > 0 || name === '*' ? '' : name;
}

/**
 * Asks where a first document goes. Writing it creates the collection, and the project if there is none.
 *
 * @param given the project; without it, the user names one.
 */
export function BeginDialog({
  project: given,
  onClose,
}: {
  readonly project?: string;
  readonly onClose: () => void;
}) {
  const { route } = useLocation();
  const [project, setProject] = useState(given ?? onlyProject());
  const [collection, setCollection] = useState('');
  const isValid = PROJECT.test(project) && COLLECTION.test(collection);
  return (
    <Dialog title={given === undefined ? 'New project' : 'New collection'} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!isValid) return;
          onClose();
          enter(project);
          route(places.create(project, collection));
        }}
      >
        {given === undefined ? (
          <>
            <p>
              The first document creates the project and its key. Bundoc then fetches the key, which adds{' '}
              <strong>one CRITICAL record</strong> to the audit chain.
            </p>
            <TextField
              label="Id of the project"
              hint="Use a-z, 0-9 and -. The id is visible in URLs and logs."
              required
              value={project}
              onInput={setProject}
            />
          </>
        ) : null}
        <TextField
          label="Name of the collection"
          hint="Use letters, digits, _ and -. For example: notes."
          required
          value={collection}
          onInput={setCollection}
        />
        <div class="dialog-end">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={!isValid}>
            Continue
          </button>
        </div>
      </form>
    </Dialog>
  );
}

import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Badge, Empty, Fault, Figure, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { TextField } from '../parts/fields.tsx';
import { bytes, count, plural, time } from '../parts/format.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { places } from './places.ts';
import { ProjectFrame } from './project-frame.tsx';

const NAME = /^[A-Za-z0-9_-]{1,128}$/;

/** The figures and collections of a project. */
export function ProjectView({ project = '' }: { readonly project?: string }) {
  return (
    <ProjectFrame project={project} here="Collections">
      {() => <Opened project={project} />}
    </ProjectFrame>
  );
}

function Opened({ project }: { readonly project: string }) {
  const info = useRequest(project, (signal) => bundoc.project(project).info({ signal }));
  const collections = useRequest(project, (signal) => bundoc.project(project).collections({ signal }));
  return (
    <>
      <Head
        title={<Name text={project} />}
        actions={may('docs:write') ? <NewCollection project={project} /> : null}
      />
      <Fault
        error={info.error ?? collections.error}
        retry={info.error === undefined ? collections.reload : info.reload}
      />
      {info.data === undefined ? null : (
        <dl class="figures">
          <Figure name="Documents">{count(info.data.documents)}</Figure>
          <Figure name="Sealed bytes">{bytes(info.data.bytes)}</Figure>
          <Figure name="Collections">{count(info.data.collections)}</Figure>
          <Figure name="Key version">
            {info.data.key.version}
            {info.data.key.versions.length > 1 ? (
              <span class="muted"> of {plural(info.data.key.versions.length, 'version')}</span>
            ) : null}
          </Figure>
          <Figure name="To re-seal">{count(info.data.key.documents_to_reseal)}</Figure>
          <Figure name="Created (UTC)">{time(info.data.created_at)}</Figure>
        </dl>
      )}
      {collections.data === undefined ? (
        collections.error === undefined ? (
          <Loading what="collections" />
        ) : null
      ) : collections.data.length === 0 ? (
        <Empty title="No collections yet">A collection exists once it holds a document.</Empty>
      ) : (
        <Table
          label="Collections"
          heads={['Collection', ['Documents', 'number'], ['Sealed', 'number'], 'Definition']}
        >
          {collections.data.map(({ name, documents, bytes: sealed, defined }) => (
            <tr key={name}>
              <th scope="row">
                <a href={places.collection(project, name)}>
                  <Name text={name} />
                </a>
              </th>
              <td class="number">{count(documents)}</td>
              <td class="number">{bytes(sealed)}</td>
              <td>{defined ? <Badge kind="accent">defined</Badge> : <span class="muted">none</span>}</td>
            </tr>
          ))}
        </Table>
      )}
    </>
  );
}

/** A form to write the first document of a collection. */
function NewCollection({ project }: { readonly project: string }) {
  const { route } = useLocation();
  const [name, setName] = useState('');
  return (
    <form
      class="inline"
      onSubmit={(event) => {
        event.preventDefault();
        if (NAME.test(name)) route(places.create(project, name));
      }}
    >
      <TextField
        label="New document in collection"
        value={name}
        pattern="[A-Za-z0-9_\-]{1,128}"
        onInput={setName}
      />
      <button type="submit" disabled={!NAME.test(name)}>
        Write
      </button>
    </form>
  );
}

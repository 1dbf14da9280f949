import { useState } from 'preact/hooks';
import { Badge, Empty, Fault, Figure, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { bytes, count, plural, time } from '../parts/format.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { BeginDialog } from './begin-dialog.tsx';
import { places } from './places.ts';
import { ProjectFrame } from './project-frame.tsx';

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
  const [isBeginning, setIsBeginning] = useState(false);
  return (
    <>
      <Head
        title={<Name text={project} />}
        actions={
          may('docs:write') && info.data !== undefined ? (
            <button type="button" class="primary" onClick={() => setIsBeginning(true)}>
              New collection
            </button>
          ) : null
        }
      />
      {isBeginning ? <BeginDialog project={project} onClose={() => setIsBeginning(false)} /> : null}
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
          <Figure name="Created (UTC)">
            <span class="when">{time(info.data.created_at)}</span>
          </Figure>
        </dl>
      )}
      {collections.data === undefined ? (
        (info.error ?? collections.error) === undefined ? (
          <Loading what="collections" />
        ) : null
      ) : collections.data.length === 0 ? (
        <Empty title="No collections yet">
          {may('docs:write')
            ? 'Choose “New collection” and write its first document.'
            : 'A collection exists once it holds a document.'}
        </Empty>
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

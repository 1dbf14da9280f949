import type { ProjectSummary } from '@bundoc/client';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Badge, Empty, Fault, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { TextField } from '../parts/fields.tsx';
import { bytes, count, span } from '../parts/format.ts';
import { Pager, usePages } from '../parts/pages.tsx';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may, nowMs } from '../shell/session.ts';
import { BeginDialog } from './begin-dialog.tsx';
import { places } from './places.ts';

const PAGE = 50;
const EVERY_MS = 5_000;
const PREFIX = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Projects with the facts that are known without their keys. The list opens none. */
export function ProjectsView() {
  const [prefix, setPrefix] = useState('');
  const [isBeginning, setIsBeginning] = useState(false);
  const pages = usePages();
  const { cursor } = pages;
  const wanted = prefix.trim().toLowerCase();
  const isValid = wanted === '' || PREFIX.test(wanted);
  const page = useRequest(
    isValid ? `${wanted}\n${cursor}` : undefined,
    (signal) =>
      bundoc.projectsPage({ pageSize: PAGE, cursor, prefix: wanted || undefined, summary: true, signal }),
    EVERY_MS,
  );
  const grown = useGrowth(page.data?.summaries);
  return (
    <>
      <Head
        title="Projects"
        lead="This list opens no project and fetches no key."
        actions={
          may('docs:write') ? (
            <button type="button" class="primary" onClick={() => setIsBeginning(true)}>
              New project
            </button>
          ) : null
        }
      />
      {isBeginning ? <BeginDialog onClose={() => setIsBeginning(false)} /> : null}
      <div class="toolbar">
        <TextField
          label="Find by the first letters"
          hint={isValid ? undefined : 'Ids contain a-z, 0-9 and -.'}
          isSearch
          value={prefix}
          aria-invalid={!isValid}
          onInput={(value) => {
            setPrefix(value);
            pages.reset();
          }}
        />
      </div>
      <Fault error={page.error} retry={page.reload} />
      {page.data === undefined ? (
        page.isLoading && page.error === undefined ? (
          <Loading what="projects" />
        ) : null
      ) : page.data.projects.length === 0 ? (
        <Empty title={wanted === '' ? 'No projects yet' : 'No project has this prefix'}>
          {wanted === ''
            ? may('docs:write')
              ? 'Choose “New project” and write its first document.'
              : 'A project exists once it holds a document. Use a token with docs:write to write one.'
            : 'Only projects that this token is for are listed.'}
        </Empty>
      ) : (
        <Table
          label="Projects"
          heads={['Project', ['Documents', 'number'], ['Sealed', 'number'], ['Key', 'number'], 'In memory']}
        >
          {page.data.projects.map((project) => (
            <Row
              key={project}
              project={project}
              summary={page.data?.summaries.get(project)}
              grown={grown.get(project) ?? 0}
            />
          ))}
        </Table>
      )}
      <Pager pages={pages} next={page.data?.nextCursor} />
    </>
  );
}

function Row({
  project,
  summary,
  grown,
}: {
  readonly project: string;
  readonly summary: ProjectSummary | undefined;
  readonly grown: number;
}) {
  const until = summary?.key_until;
  return (
    <tr>
      <th scope="row">
        <a href={places.project(project)}>
          <Name text={project} />
        </a>
      </th>
      <td class="number">
        {grown === 0 ? null : <span class="grown">{grown > 0 ? `+${count(grown)}` : count(grown)} </span>}
        {summary?.documents === undefined ? <Unknown /> : count(summary.documents)}
      </td>
      <td class="number">{summary?.bytes === undefined ? <Unknown /> : bytes(summary.bytes)}</td>
      <td class="number">{summary?.key_version === undefined ? <Unknown /> : `v${summary.key_version}`}</td>
      <td>
        {summary?.open === true ? <Badge kind="good">open</Badge> : <Badge>closed</Badge>}{' '}
        <span class="muted">
          {until === undefined ? 'no key' : `key for ${span(Date.parse(until) - nowMs.value)}`}
        </span>
      </td>
    </tr>
  );
}

function Unknown() {
  return (
    <span class="muted" title="Unknown without the key before the first checkpoint">
      –
    </span>
  );
}

/** How many documents each project has gained while the view is open. */
function useGrowth(summaries: ReadonlyMap<string, ProjectSummary> | undefined): ReadonlyMap<string, number> {
  const first = useRef(new Map<string, number>());
  const [grown, setGrown] = useState<ReadonlyMap<string, number>>(new Map());
  useEffect(() => {
    if (summaries === undefined) return;
    const next = new Map<string, number>();
    for (const [project, { documents }] of summaries) {
      if (documents === undefined) continue;
      const before = first.current.get(project);
      if (before === undefined) first.current.set(project, documents);
      else if (documents !== before) next.set(project, documents - before);
    }
    setGrown(next);
  }, [summaries]);
  return grown;
}

import createClient from 'openapi-fetch';
import type {
  Batch,
  Condition,
  Document,
  DocumentMetadata,
  DocumentNotFoundProblem,
  DocumentPage,
  Operators,
  paths,
  Query,
  QueryPage,
} from './bundoc-api.js';

// @ts-expect-error: there is no such operator.
export const operators: Operators = { $atLeast: 3 };
// @ts-expect-error: there is no such member.
export const query: Query = { sort: [{ field: 'priority' }] };
// @ts-expect-error: there is no such operation.
export const batch: Batch = { operations: [{ op: 'make', collection: 'notes', document: {} }] };
// @ts-expect-error: a document has a revision.
export const document: Document = { _id: 'one', _collection: 'notes' };

/** Creates, lists, queries, patches and writes a batch, and meets a refusal. */
export async function run(baseUrl: string, token: string) {
  const client = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });
  const path = { project: 'generated', collection: 'notes' };

  const created = await client.POST('/v1/projects/{project}/collections/{collection}/documents', {
    params: { path },
    body: { _id: 'one', title: 'Hello', priority: 3 },
  });
  if (created.error !== undefined) throw new Error(created.error.title);
  const metadata: DocumentMetadata = created.data;

  const operations: Batch['operations'] = [
    { op: 'create', collection: 'notes', id: 'two', document: { title: 'Bye', priority: 1 } },
    { op: 'patch', collection: 'notes', id: 'one', merge: { tags: ['a'] } },
  ];
  const written = await client.POST('/v1/projects/{project}/batch', {
    params: { path: { project: path.project } },
    body: { operations },
  });
  if (written.error !== undefined) throw new Error(written.error.title);

  const patched = await client.PATCH('/v1/projects/{project}/collections/{collection}/documents/{id}', {
    params: { path: { ...path, id: metadata._id } },
    headers: { 'content-type': 'application/merge-patch+json' },
    body: { title: 'Hello again' },
  });
  if (patched.error !== undefined) throw new Error(patched.error.title);

  const listed = await client.GET('/v1/projects/{project}/collections/{collection}/documents', {
    params: { path, query: { limit: 20 } },
  });
  if (listed.error !== undefined) throw new Error(listed.error.title);
  const page: DocumentPage = listed.data;

  const where: Condition = {
    priority: { $gte: 3 },
    $or: [{ title: 'Hi' }, { title: { $beginsWith: 'Hello' } }],
  };
  const queried = await client.POST('/v1/projects/{project}/collections/{collection}/query', {
    params: { path },
    body: { where, orderBy: [{ field: 'priority', direction: 'desc' }] },
  });
  if (queried.error !== undefined) throw new Error(queried.error.title);
  const found: QueryPage = queried.data;
  const [first]: Document[] = found.documents;

  const missing = await client.GET('/v1/projects/{project}/collections/{collection}/documents/{id}', {
    params: { path: { ...path, id: 'none' } },
  });
  let problem: DocumentNotFoundProblem | undefined;
  if (missing.error?.code === 'document_not_found') problem = missing.error;
  // @ts-expect-error: the operation does not answer this.
  if (missing.error?.code === 'kek_in_use') throw new Error('no refusal of Bundoc');

  return {
    results: written.data.results.length,
    listed: page.documents.map(({ _id }) => _id),
    found: first?.['title'],
    refusal: problem?.status,
  };
}

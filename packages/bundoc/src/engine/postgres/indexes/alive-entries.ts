import type { Queryable, Statement } from '../database/database.ts';
import type { OrderEntry } from '../order/entry.ts';

/** Which of some entries are those of the present state of a document. */
const ALIVE: Statement = {
  name: 'bundoc-alive-entries-1',
  text: `
SELECT w.place FROM unnest($3::bigint[], $4::bigint[]) WITH ORDINALITY AS w(created, changed, place) CROSS JOIN LATERAL (
  SELECT seq FROM bundoc.documents
  WHERE project = $1 AND collection = $2 AND created_seq = w.created AND deleted_ms = 0 LIMIT 1
) AS d WHERE d.seq = w.changed`,
};

/** The entries that count: their documents live, and have not changed since. */
export async function aliveOf(
  queryable: Queryable,
  project: string,
  collection: Buffer,
  entries: readonly OrderEntry[],
): Promise<readonly OrderEntry[]> {
  if (entries.length === 0) return [];
  // A statement shows no order of values.
  const sorted = entries.toSorted((a, b) => a.createdSeq - b.createdSeq);
  const places = [sorted.map(({ createdSeq }) => createdSeq), sorted.map(({ seq }) => seq)];
  const rows = await queryable.query(ALIVE, [project, collection, ...places]);
  return rows.map(([place]) => sorted[Number(place) - 1] as OrderEntry);
}

import { memberValue, treeText } from '@bundoc/shared/json/tree';
import { InvalidLine } from '../operations/ndjson.ts';
import { type ForeignFormat, refusal, stringOf } from './foreign.ts';

/** The answers of CouchDB to `_all_docs?include_docs=true`, or to `_changes?include_docs=true`. */
export const couchdb: ForeignFormat = {
  lists: ['rows', 'results'],
  mayBeEmpty: false,
  reader: () => (row) => {
    const document = memberValue(row, 'doc');
    if (document === undefined && memberValue(row, 'error') === undefined)
      throw new InvalidLine('the rows have no doc: request them with include_docs=true');
    if (document?.kind !== 'object') return undefined;
    const id = stringOf(memberValue(document, '_id'));
    if (id === undefined) throw refusal('_id', 'a document of CouchDB has a text');
    const deleted = memberValue(document, '_deleted');
    const isDeleted = deleted !== undefined && treeText(deleted) === 'true';
    if (isDeleted || id.startsWith('_design/')) return undefined;
    const kept = document.members.filter(({ name }) => name !== '_id' && name !== '_rev');
    const attachments = memberValue(document, '_attachments');
    const isStub =
      attachments?.kind === 'object' &&
      attachments.members.some(({ value }) => value.kind === 'object' && !memberValue(value, 'data'));
    return {
      id,
      members: kept.map(({ name, value }) => [name, treeText(value)]),
      warning: isStub
        ? 'the content of its attachments is not in the export; attachments_ describes it'
        : undefined,
    };
  },
};

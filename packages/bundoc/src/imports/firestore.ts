import { type JsonNode, type JsonObject, memberValue } from '@bundoc/shared/json/tree';
import { InvalidLine } from '../operations/ndjson.ts';
import { type ForeignFormat, NOT_FINITE, NUMBER, pathTo, refusal, stringOf, timeText } from './foreign.ts';

/**
 * The answers of Firestore's REST API to a list of documents or to `:runQuery`, one behind the other. The id
 * of a document in a subcollection begins with the ids of the documents above it: `alice:first`.
 */
export const firestore: ForeignFormat = {
  lists: ['documents'],
  isEmptyPage: (names) => names.every((name) => name === 'nextPageToken'),
  mayBeEmpty: false,
  reader: () => (element) => {
    const found = memberValue(element, 'document');
    // A result of a query may have a time alone.
    if (found === undefined && memberValue(element, 'readTime') !== undefined) return undefined;
    const document = found?.kind === 'object' ? found : element;
    const name = stringOf(memberValue(document, 'name'));
    const [, root, path] = /^(projects\/[^/]+\/databases\/[^/]+\/documents\/)(.+)$/s.exec(name ?? '') ?? [];
    if (root === undefined || path === undefined)
      throw new InvalidLine(
        'there is a document without a name such as projects/…/documents/users/alice: does --format fit this file?',
      );
    const segments = path.split('/');
    const ids = segments.filter((_, at) => at % 2 === 1);
    const fields = memberValue(document, 'fields');
    if (ids.length > 1 && ids.some((id) => id.includes(':')))
      throw refusal('name', 'a ":" in an id of a subcollection would be ambiguous');
    const members = fields?.kind === 'object' ? fields.members : [];
    return {
      id: ids.join(':'),
      collection: segments.at(-2),
      members: members.map(({ name, value }) => [name, textOf(value, name, root)]),
    };
  },
};

/** @param root the beginning of the names of this database. @throws RefusedDocument */
function textOf(node: JsonNode, path: string, root: string): string {
  const [member, ...others] = node.kind === 'object' ? node.members : [];
  if (member === undefined || others.length > 0) throw refusal(path, 'is no value of Firestore');
  const { name, value } = member;
  const text = value.kind === 'scalar' ? value.text : '';
  const string = stringOf(value);
  const wrong = () => refusal(path, `the ${name} cannot be read`);
  switch (name) {
    case 'nullValue':
      return 'null';
    case 'booleanValue':
      if (text !== 'true' && text !== 'false') throw wrong();
      return text;
    case 'integerValue':
    case 'doubleValue': {
      if (name === 'doubleValue' && NOT_FINITE.has(string)) return text;
      const number = string ?? text;
      if (!NUMBER.test(number)) throw wrong();
      return number;
    }
    case 'stringValue':
    case 'bytesValue':
      if (string === undefined) throw wrong();
      return text;
    case 'timestampValue': {
      const time = timeText(string ?? '');
      if (time === undefined) throw wrong();
      return `"${time}"`;
    }
    case 'referenceValue':
      if (string === undefined) throw wrong();
      return string.startsWith(root) ? JSON.stringify(string.slice(root.length)) : text;
    case 'geoPointValue':
      if (value.kind !== 'object') throw wrong();
      return `{"latitude":${degrees(value, 'latitude', path)},"longitude":${degrees(value, 'longitude', path)}}`;
    case 'arrayValue': {
      const values = value.kind === 'object' ? memberValue(value, 'values') : undefined;
      const items = values?.kind === 'array' ? values.items : [];
      return `[${items.map((item, at) => textOf(item.value, pathTo(path, at), root)).join(',')}]`;
    }
    case 'mapValue': {
      const fields = value.kind === 'object' ? memberValue(value, 'fields') : undefined;
      const members = fields?.kind === 'object' ? fields.members : [];
      return `{${members.map((field) => `${field.nameText}:${textOf(field.value, pathTo(path, field.name), root)}`).join(',')}}`;
    }
    default:
      throw refusal(path, `${name} is no type that an import knows`);
  }
}

/** The API leaves out zeros. */
function degrees(point: JsonObject, name: string, path: string): string {
  const value = memberValue(point, name);
  if (value === undefined) return '0';
  if (value.kind !== 'scalar' || !NUMBER.test(value.text)) throw refusal(pathTo(path, name), 'is no number');
  return value.text;
}

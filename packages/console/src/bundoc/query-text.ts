/** The operators of conditions (docs/query.md). */
export const OPERATORS: readonly { readonly label: string; readonly detail: string }[] = [
  ['$eq', 'equal to'],
  ['$ne', 'not equal to'],
  ['$gt', 'greater than'],
  ['$gte', 'greater than or equal to'],
  ['$lt', 'less than'],
  ['$lte', 'less than or equal to'],
  ['$in', 'one of'],
  ['$nin', 'none of'],
  ['$beginsWith', 'text that begins with'],
  ['$exists', 'there or not'],
  ['$type', 'of a type'],
  ['$all', 'an array with all of'],
  ['$size', 'an array of a length'],
  ['$elemMatch', 'an element for which holds'],
  ['$not', 'for which does not hold'],
  ['$and', 'all of these conditions'],
  ['$or', 'one of these conditions'],
  ['$nor', 'none of these conditions'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/** Members of a query beside the operators. */
export const MEMBERS: readonly { readonly label: string; readonly detail: string }[] = [
  ['where', 'the condition'],
  ['orderBy', 'a list of fields and directions'],
  ['limit', 'documents of a page'],
  ['fields', 'the members that are given'],
  ['groupBy', 'fields to group by'],
  ['figures', 'what is computed of each group'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/**
 * A query's text with further members put before its own. The rest goes out as it was typed, so that a
 * number in a condition is the number that is sought.
 */
export function withMembers(text: string, members: Readonly<Record<string, unknown>>): string {
  const own = Object.keys(JSON.parse(text) as object);
  const added = Object.entries(members)
    .filter(([name, value]) => value !== undefined && !own.includes(name))
    .map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  if (added.length === 0) return text;
  const inside = text.indexOf('{') + 1;
  return `${text.slice(0, inside)}${added.join(',')}${own.length === 0 ? '' : ','}${text.slice(inside)}`;
}

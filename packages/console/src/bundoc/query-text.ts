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
  ['$contains', 'text that contains'],
  ['$endsWith', 'text that ends with'],
  ['$options', '"i" ignores case in texts'],
  ['$mod', 'divisor and remainder'],
  ['$exists', 'exists or not'],
  ['$type', 'of a type'],
  ['$all', 'an array with all of'],
  ['$size', 'an array with this length'],
  ['$elemMatch', 'an element that matches'],
  ['$not', 'does not match'],
  ['$and', 'all of these conditions'],
  ['$or', 'one of these conditions'],
  ['$nor', 'none of these conditions'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/** The operators of updates (docs/updates.md). */
export const UPDATE_OPERATORS: readonly { readonly label: string; readonly detail: string }[] = [
  ['$set', 'write a value'],
  ['$unset', 'remove a member'],
  ['$inc', 'add a number'],
  ['$mul', 'multiply by a number'],
  ['$min', 'write a lesser value'],
  ['$max', 'write a greater value'],
  ['$push', 'add to an array'],
  ['$addToSet', 'add to an array once'],
  ['$pull', 'remove from an array'],
  ['$currentDate', 'write the time of the service'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/** Members of a query besides the operators. */
export const MEMBERS: readonly { readonly label: string; readonly detail: string }[] = [
  ['where', 'the condition'],
  ['orderBy', 'a list of fields and directions'],
  ['limit', 'documents per page'],
  ['fields', 'the members to return'],
  ['as_of', 'the state of an earlier answer'],
  ['groupBy', 'fields to group by'],
  ['figures', 'values to compute for each group'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/** Members of a change or deletion by query. */
export const WRITE_MEMBERS: typeof MEMBERS = [
  { label: '"where"', detail: 'the condition' },
  { label: '"update"', detail: 'the operators to apply' },
];

/**
 * The text of a query with further members before its own. The rest is sent exactly as typed, so that numbers
 * in conditions stay exact.
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

import {
  type JsonMember,
  type JsonNode,
  type JsonObject,
  objectOf,
  withNewMembers,
} from '@bundoc/shared/json/tree';

/**
 * Applies a merge patch (RFC 7396) to an object. Members that it does not name stay verbatim in their places;
 * new ones follow, as the patch writes them. Linear in the size of both.
 */
export function applyMergePatch(target: JsonObject, patch: JsonObject): JsonObject {
  if (patch.members.length === 0) return target;
  const asked = new Map(patch.members.map((member) => [member.name, member]));
  let isChanged = false;
  const members: JsonMember[] = [];
  for (const member of target.members) {
    const change = asked.get(member.name);
    asked.delete(member.name);
    if (change === undefined) {
      members.push(member);
    } else {
      isChanged = true;
      if (!isNull(change.value)) members.push({ ...member, value: merged(member.value, change.value) });
    }
  }
  const added = [...asked.values()].filter(({ value }) => !isNull(value));
  if (!isChanged && added.length === 0) return target;
  return withNewMembers(
    objectOf(members),
    added.map(({ name, nameText, value }) => ({ name, nameText, value: withoutNulls(value) })),
  );
}

function merged(present: JsonNode, change: JsonNode): JsonNode {
  if (change.kind !== 'object') return change;
  return present.kind === 'object' ? applyMergePatch(present, change) : withoutNulls(change);
}

/** The patch applied to nothing: itself without null members; verbatim if it has none. */
function withoutNulls(node: JsonNode): JsonNode {
  if (node.kind !== 'object') return node;
  let isChanged = false;
  const members: JsonMember[] = [];
  for (const member of node.members) {
    if (isNull(member.value)) {
      isChanged = true;
      continue;
    }
    const value = withoutNulls(member.value);
    if (value !== member.value) isChanged = true;
    members.push(value === member.value ? member : { ...member, value });
  }
  return isChanged ? objectOf(members) : node;
}

function isNull(node: JsonNode): boolean {
  return node.text === 'null';
}

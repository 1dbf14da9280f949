import { AppError } from '@bundoc/shared/contract/app-error';
import { showAs } from '@bundoc/shared/contract/json-schema';
import { faultPath, type RequestPart, validate } from '@bundoc/shared/http/validate';
import { ARITHMETIC_DIGITS_MAX, isComputable } from '@bundoc/shared/json/arithmetic';
import { type JsonNode, memberValue, treeText } from '@bundoc/shared/json/tree';
import { z } from 'zod';
import { operatorsOf, whereSchema } from '../../queries/where.ts';
import { faultOfPath, pathOf } from '../../values/path.ts';
import type { UpdateBranch, UpdateStep } from './update.ts';
import { isNumber, NAMES_BEFORE_CONDITION, onElement, type UpdateChange } from './update-operators.ts';

export const UPDATE_TYPE = 'application/vnd.bundoc.update+json';

/** Maximum paths in one update. */
const UPDATE_PATHS_MAX = 500;

const RESERVED = 'a path must not begin with "_": such names are metadata';

const pathSchema = z.string().superRefine((path, context) => {
  const fault =
    faultOfPath(path) ??
    (pathOf(path).includes('__proto__') ? 'a path must not name "__proto__"' : undefined) ??
    (path.startsWith('_') ? RESERVED : undefined);
  if (fault !== undefined) context.addIssue({ code: 'custom', message: fault });
});
/** A value by path, which is read from its text. */
const valuesSchema = z.record(pathSchema, z.unknown()).optional();
const numbersSchema = z.record(pathSchema, showAs(z.unknown(), z.number())).optional();

/** The body of an update. The reader of its text also checks numbers, conditions and members with `$each`. */
export const updateSchema = z
  .strictObject({
    $set: valuesSchema,
    $unset: valuesSchema,
    $inc: numbersSchema,
    $mul: numbersSchema,
    $min: valuesSchema,
    $max: valuesSchema,
    $push: valuesSchema,
    $addToSet: valuesSchema,
    $pull: valuesSchema,
    $currentDate: valuesSchema,
  })
  .meta({ description: "Update operators with MongoDB's names, each with an operand by dotted path" });
type UpdateOperator = keyof z.infer<typeof updateSchema>;

const addSchema = z.strictObject({ $each: z.array(z.unknown()) });
const pushSchema = addSchema.extend({ $position: z.int().optional(), $slice: z.int().optional() });
const dateSchema = z.strictObject({ $type: z.literal('date') });

/** An update, ready to be applied: plain data, so that it can be passed to another thread. */
export interface ReadUpdate {
  readonly root: UpdateBranch;
  /** Maximum tests of one value: its changes are in different places. */
  readonly tests: number;
}

/**
 * @param tree the parsed text of `value`.
 * @param part the part of the request that contains the text.
 * @throws AppError `invalid_patch`, with the place of each fault in `errors`.
 */
export function readUpdate(tree: JsonNode, value: unknown, part: RequestPart): ReadUpdate {
  const update = valid(updateSchema, value, part);
  const root: WritableBranch = { op: 'below', steps: [] };
  let paths = 0;
  let tests = 0;
  const operators = tree.kind === 'object' ? tree.members : [];
  if (operators.length === 0) throw fault(part, [], 'must have an operator, such as "$set"');
  for (const { name, value: operands } of operators) {
    if (operands.kind !== 'object') continue;
    const operator = name as UpdateOperator;
    paths += operands.members.length;
    if (paths > UPDATE_PATHS_MAX) throw fault(part, [], `must have at most ${UPDATE_PATHS_MAX} paths`);
    for (const { name: path, value: node } of operands.members) {
      const place = [operator, path];
      const change = changeOf(operator, { node, value: update[operator]?.[path], place, part });
      tests = Math.max(tests, testsOf(change, place, part));
      insert(root, change, place, part);
    }
  }
  return { root, tests };
}

interface WritableBranch extends UpdateBranch {
  readonly steps: [name: string, step: UpdateStep][];
}

interface Operand {
  readonly node: JsonNode;
  readonly value: unknown;
  readonly place: readonly string[];
  readonly part: RequestPart;
}

function changeOf(op: UpdateOperator, operand: Operand): UpdateChange {
  const { node, value } = operand;
  const place = operand.place.join('.');
  switch (op) {
    case '$unset':
      return { op, place };
    case '$currentDate':
      if (value !== true && !dateSchema.safeParse(value).success)
        throw faultAt(operand, 'must be true or {"$type":"date"}');
      return { op, place };
    case '$inc':
    case '$mul':
      if (!isNumber(node)) throw faultAt(operand, 'must be a number');
      if (!isComputable(treeText(node)))
        throw faultAt(operand, `must have at most ${ARITHMETIC_DIGITS_MAX} digits, written in full`);
      return { op, place, value: node };
    case '$push': {
      const { $position: position, $slice: slice } = modified(node) ? validAt(pushSchema, operand) : {};
      return { op, place, values: valuesOf(node), position, slice };
    }
    case '$addToSet':
      if (modified(node)) validAt(addSchema, operand);
      return { op, place, values: valuesOf(node) };
    default:
      return { op, place, value: node };
  }
}

/** Whether an operand has members such as `$each`. */
function modified(node: JsonNode): boolean {
  return node.kind === 'object' && node.members.some(({ name }) => name.startsWith('$'));
}

/** @param node with valid members. */
function valuesOf(node: JsonNode): readonly JsonNode[] {
  const each = node.kind === 'object' && modified(node) ? memberValue(node, '$each') : undefined;
  return each?.kind === 'array' ? each.items.map(({ value }) => value) : [node];
}

/** @throws AppError `invalid_patch` for a condition that a query would refuse. */
function testsOf(change: UpdateChange, place: readonly string[], part: RequestPart): number {
  if (change.op === '$addToSet') return 1;
  if (change.op !== '$pull') return 0;
  if (change.value.kind !== 'object') return 1;
  const parsed = whereSchema.safeParse(onElement(change.value));
  if (parsed.success) return operatorsOf(parsed.data);
  const errors = parsed.error.issues.map(({ path, message }) => ({
    path: faultPath(part, [...place, ...path.slice(NAMES_BEFORE_CONDITION)]),
    message,
  }));
  throw new AppError('invalid_patch', { errors: errors.slice(0, 20) });
}

/** @throws AppError `invalid_patch` when another change is in the same place, or above or below it. */
function insert(
  root: WritableBranch,
  change: UpdateChange,
  place: readonly string[],
  part: RequestPart,
): void {
  const names = [...pathOf(place[1] as string)];
  const last = names.pop() as string;
  let branch = root;
  for (const name of names) {
    const below = stepOf(branch, name) ?? { op: 'below', steps: [] };
    if (below.op !== 'below') throw conflict(below);
    if (stepOf(branch, name) === undefined) branch.steps.push([name, below]);
    branch = below as WritableBranch;
  }
  const present = stepOf(branch, last);
  if (present !== undefined) throw conflict(present);
  branch.steps.push([last, change]);

  function conflict(step: UpdateStep): AppError {
    let other = step;
    while (other.op === 'below') other = other.steps[0]?.[1] as UpdateStep;
    return fault(part, place, `conflicts with ${other.place}: an update changes each place once`);
  }
}

/** There are few steps: see {@link UPDATE_PATHS_MAX}. */
function stepOf({ steps }: UpdateBranch, name: string): UpdateStep | undefined {
  return steps.find(([other]) => other === name)?.[1];
}

function validAt<S extends z.ZodType>(schema: S, { value, place, part }: Operand): z.infer<S> {
  return valid(schema, value, faultPath(part, place) as RequestPart);
}

/** {@link validate} with the code of patches. @throws AppError `invalid_patch`. */
export function valid<S extends z.ZodType>(schema: S, value: unknown, part: RequestPart): z.infer<S> {
  try {
    return validate(schema, value, part);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    throw new AppError('invalid_patch', { errors: error.errors ?? [] });
  }
}

function faultAt({ place, part }: Operand, message: string): AppError {
  return fault(part, place, message);
}

function fault(part: RequestPart, place: readonly string[], message: string): AppError {
  return new AppError('invalid_patch', { errors: [{ path: faultPath(part, place), message }] });
}

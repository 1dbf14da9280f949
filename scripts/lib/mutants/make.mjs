import { hash } from 'node:crypto';
import { globSync } from 'node:fs';
import { parseSync } from 'vite';

/**
 * A change in one place of a source file.
 * @typedef {object} Mutant
 * @property {string} file relative to the root.
 * @property {number} line from 1.
 * @property {string} lineText the original line, trimmed.
 * @property {string} operator
 * @property {number} start in UTF-16 units.
 * @property {number} end
 * @property {string} before
 * @property {string} after
 */

const COMPARISONS = {
  '<': ['<=', '>='],
  '<=': ['<', '>'],
  '>': ['>=', '<='],
  '>=': ['>', '<'],
  '===': ['!=='],
  '!==': ['==='],
};
const ARITHMETIC = { '+': '-', '-': '+' };
const LOGICAL = { '&&': '||', '||': '&&' };

/** Files with only texts for people or only types. */
const LEFT_OUT =
  /\.test\.ts$|\/testing\/|conformance|\.d\.ts$|\/openapi\/|-(?:text|help|docs)\.ts$|\/describe/;
/** Members with text for people or descriptions of routes. */
const TEXT_MEMBERS =
  /^(?:description|summary|title|detail|message|msg|help|hint|examples?|usage|docs|event)$/;
/** Names of constants, members and options that only tune speed or timeouts. */
const TUNING =
  /ms$|bytes(?:max|min)?$|max$|min$|seconds$|timeout|interval|delay|retr|backoff|cache|buffer|chunk|concurren|limit|capacity|bucket|per_?|size|weight|level|every|pages?/i;
/** Calls that only report, unref timers, or check invariants that no caller can break. */
const SILENT_CALLS =
  /^(?:assert|super|describe)$|(?:^|\.)(?:log|logger|console|metrics?|assert)\.|\.(?:describe|unref|meta|info|warn|debug|trace|assert)$/;

/** The sources of the product, which are mutated. */
export function productFiles(root) {
  const files = globSync('packages/{bundoc,bunkms,client,shared}/src/**/*.ts', { cwd: root });
  return files.filter((file) => !LEFT_OUT.test(file)).sort();
}

/**
 * All mutants of a TypeScript source, in the order of their places.
 * @param {string} source
 * @param {string} file relative to the root; mutants name it.
 * @returns {Mutant[]}
 */
export function mutantsOf(source, file) {
  const { program, errors } = parseSync(file, source);
  if (errors.length > 0) throw new Error(`${file}: ${errors[0].message}`);
  /** @type {Mutant[]} */
  const mutants = [];
  const lineStarts = [0, ...[...source.matchAll(/\n/g)].map(({ index }) => index + 1)];
  const add = (operator, start, end, after) => {
    const line = lineStarts.findLastIndex((one) => one <= start);
    const lineText = source.slice(lineStarts[line], lineStarts[line + 1]).trim();
    const before = source.slice(start, end);
    mutants.push({ file, line: line + 1, lineText, operator, start, end, before, after });
  };
  visit(program, undefined, source, add);
  return mutants.sort((a, b) => a.start - b.start || a.end - b.end || (a.after < b.after ? -1 : 1));
}

/**
 * The source with the mutant in it.
 * @param {string} source
 * @param {Pick<Mutant, 'start' | 'end' | 'before' | 'after'>} mutant
 */
export function mutate(source, { start, end, before, after }) {
  if (source.slice(start, end) !== before) throw new Error('the mutant belongs to another source');
  return source.slice(0, start) + after + source.slice(end);
}

/**
 * A random sample for a seed. Each mutant has its own rank, so a change of the code replaces only the mutants
 * of changed lines.
 * @param {readonly Mutant[]} all
 * @param {number} count
 * @param {number} seed
 * @returns {Mutant[]}
 */
export function sample(all, count, seed) {
  const seen = new Map();
  const ranked = all.map((mutant) => {
    const name = JSON.stringify([seed, mutant.file, mutant.lineText, mutant.before, mutant.after]);
    // The same change of an identical line further down.
    const repeat = (seen.get(name) ?? 0) + 1;
    seen.set(name, repeat);
    return { mutant, rank: hash('sha256', `${name} ${repeat}`) };
  });
  ranked.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  return ranked.slice(0, count).map(({ mutant }) => mutant);
}

function visit(node, parent, source, add) {
  if (isSkipped(node, source)) return;
  OPERATORS[node.type]?.(node, parent, source, add);
  for (const child of Object.values(node))
    for (const one of Array.isArray(child) ? child : [child])
      if (typeof one?.type === 'string') visit(one, node, source, add);
}

function isSkipped(node, source) {
  switch (node.type) {
    case 'TSAsExpression':
    case 'TSNonNullExpression':
    case 'TSSatisfiesExpression':
      return false;
    case 'Property':
    case 'PropertyDefinition': {
      const name = source.slice(node.key.start, node.key.end);
      return TEXT_MEMBERS.test(name) || (node.value?.type === 'Literal' && TUNING.test(name));
    }
    case 'VariableDeclarator':
      return (
        node.id.type === 'Identifier' && /^[A-Z][A-Z0-9_]+$/.test(node.id.name) && TUNING.test(node.id.name)
      );
    case 'CallExpression':
      return SILENT_CALLS.test(source.slice(node.callee.start, node.callee.end));
    default:
      return node.type.startsWith('TS') || node.type.startsWith('Import');
  }
}

const OPERATORS = {
  BinaryExpression(node, _parent, source, add) {
    const place = operatorPlace(node, source);
    for (const after of COMPARISONS[node.operator] ?? []) add('comparison', ...place, after);
    const other = ARITHMETIC[node.operator];
    if (other !== undefined && !isText(node)) add('arithmetic', ...place, other);
  },
  LogicalExpression(node, _parent, source, add) {
    const other = LOGICAL[node.operator];
    if (other !== undefined) add('and-or', ...operatorPlace(node, source), other);
  },
  Literal(node, parent, _source, add) {
    if (typeof node.value === 'boolean') add('boolean', node.start, node.end, String(!node.value));
    if (typeof node.value === 'number' && node.value < 256 && parent.type !== 'Property')
      add('off by one', node.start, node.end, String(node.value + 1));
  },
  UnaryExpression(node, _parent, source, add) {
    if (node.operator === '!')
      add('negation removed', node.start, node.end, source.slice(node.argument.start, node.argument.end));
  },
  ExpressionStatement(node, _parent, source, add) {
    const call = node.expression.type === 'AwaitExpression' ? node.expression.argument : node.expression;
    if (call.type === 'CallExpression' && !isSkipped(call, source))
      add('call removed', node.start, node.end, ';');
  },
  IfStatement(node, parent, source, add) {
    const { consequent } = node;
    OPERATORS.ConditionalExpression(node, parent, source, add);
    const only = consequent.type === 'BlockStatement' ? consequent.body.at(-1) : consequent;
    if (node.alternate === null && /^(?:Return|Throw|Continue|Break)Statement$/.test(only?.type ?? ''))
      add('exit removed', only.start, only.end, ';');
  },
  ConditionalExpression({ test }, _parent, source, add) {
    add('condition negated', test.start, test.end, `!(${source.slice(test.start, test.end)})`);
  },
};

/** The position of a binary operator between its operands. */
function operatorPlace({ left, right, operator }, source) {
  const start = source.indexOf(operator, left.end);
  if (start < 0 || start >= right.start) throw new Error(`no operator "${operator}" at ${left.end}`);
  return [start, start + operator.length];
}

/** Whether a sum visibly concatenates strings. */
function isText(node) {
  if (node.type === 'TemplateLiteral' || typeof node.value === 'string') return true;
  return node.type === 'BinaryExpression' && (isText(node.left) || isText(node.right));
}

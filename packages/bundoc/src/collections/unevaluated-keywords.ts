import { _, type Ajv, type Code, type CodeKeywordDefinition, type KeywordCxt, Name, str } from 'ajv';
import { and, not } from 'ajv/dist/compile/codegen/index.js';
import { alwaysValidSchema, evaluatedPropsToName, mergeEvaluated, Type } from 'ajv/dist/compile/util.js';

/**
 * Makes Ajv track evaluated members as the draft defines it. Ajv 8.20 has four faults. It counts what a
 * failing `if` visited as evaluated. It forgets earlier evaluations when a later alternative fails. It
 * compares a number of elements with `true`. It takes `constructor` as evaluated in every object.
 *
 * Ajv keeps what is evaluated in `it.items` and `it.props`: either known at compile time, or the name of a
 * variable of the compiled check.
 */
export function fixUnevaluated(ajv: Ajv): void {
  for (const keyword of ['anyOf', 'oneOf']) {
    const original = ajv.getKeyword(keyword) as CodeKeywordDefinition;
    replace(ajv, {
      ...original,
      code: (cxt, type) => {
        useVariables(cxt);
        original.code(cxt, type);
      },
    });
  }
  for (const mended of FIXED_KEYWORDS) replace(ajv, mended);
}

function replace(ajv: Ajv, definition: CodeKeywordDefinition): void {
  ajv.removeKeyword(definition.keyword as string);
  ajv.addKeyword(definition);
}

/** Keeps what is evaluated in variables that are set whichever alternative matches. */
function useVariables({ gen, it }: KeywordCxt): void {
  if (it.props !== true && !(it.props instanceof Name)) it.props = evaluatedPropsToName(gen, it.props);
  if (it.items !== true && !(it.items instanceof Name)) it.items = gen.var('items', it.items ?? 0);
}

const FIXED_KEYWORDS: readonly CodeKeywordDefinition[] = [
  {
    keyword: 'if',
    schemaType: ['object', 'boolean'],
    trackErrors: true,
    error: {
      message: ({ params }) => str`must match "${params['ifClause']}" schema`,
      params: ({ params }) => _`{failingKeyword: ${params['ifClause']}}`,
    },
    code(cxt) {
      const { gen, parentSchema } = cxt;
      useVariables(cxt);
      const valid = gen.let('valid', true);
      const clause = gen.let('ifClause', _`""`);
      const isMet = gen.name('_valid');
      const quiet = { compositeRule: true, createErrors: false, allErrors: false } as const;
      cxt.mergeValidEvaluated(cxt.subschema({ keyword: 'if', ...quiet }, isMet), isMet);
      cxt.reset();
      const branch = (keyword: 'then' | 'else') => () => {
        if (parentSchema[keyword] === undefined) return;
        const applied = cxt.subschema({ keyword }, isMet);
        gen.assign(valid, isMet);
        cxt.mergeValidEvaluated(applied, valid);
        gen.assign(clause, _`${keyword}`);
      };
      cxt.setParams({ ifClause: clause });
      gen.if(isMet, branch('then'), branch('else'));
      cxt.pass(valid, () => cxt.error(true));
    },
  },
  {
    keyword: 'dependentSchemas',
    type: 'object',
    schemaType: 'object',
    code(cxt) {
      const { gen, data, keyword, it } = cxt;
      const schemas = Object.entries(cxt.schema as Record<string, object | boolean>);
      for (const [name, schema] of schemas) {
        if (alwaysValidSchema(it, schema) === true) continue;
        if (it.props !== true && !(it.props instanceof Name)) it.props = evaluatedPropsToName(gen, it.props);
        const valid = gen.name('valid');
        gen.if(
          isOwn(data, _`${name}`),
          () => {
            const { props } = cxt.subschema({ keyword, schemaProp: name }, valid);
            // Only objects come here, so the state of arrays does not matter.
            if (it.props !== true && props !== undefined) {
              const known = it.props;
              gen.if(valid, () => {
                it.props = mergeEvaluated.props(gen, props, known, Name);
              });
            }
          },
          () => gen.var(valid, true),
        );
        cxt.ok(valid);
      }
    },
  },
  {
    keyword: 'unevaluatedItems',
    type: 'array',
    schemaType: ['boolean', 'object'],
    error: {
      message: ({ params }) => str`must NOT have more than ${params['len']} items`,
      params: ({ params }) => _`{limit: ${params['len']}}`,
    },
    code(cxt) {
      const { gen, schema, data, it } = cxt;
      const items = it.items ?? 0;
      it.items = true;
      if (items === true) return;
      const length = gen.const('len', _`${data}.length`);
      const from =
        items instanceof Name ? gen.const('from', _`${items} === true ? ${length} : ${items}`) : items;
      if (schema === false) {
        cxt.setParams({ len: from });
        cxt.fail(_`${length} > ${from}`);
      } else if (alwaysValidSchema(it, schema as object | boolean) !== true) {
        const valid = gen.var('valid', true);
        gen.forRange('i', from, length, (at) => {
          const isValid = gen.name('_valid');
          cxt.subschema({ keyword: 'unevaluatedItems', dataProp: at, dataPropType: Type.Num }, isValid);
          gen.if(not(isValid), () => {
            gen.assign(valid, false);
            if (it.allErrors !== true) gen.break();
          });
        });
        cxt.ok(valid);
      }
    },
  },
  {
    keyword: 'unevaluatedProperties',
    type: 'object',
    schemaType: ['boolean', 'object'],
    trackErrors: true,
    error: {
      message: 'must NOT have unevaluated properties',
      params: ({ params }) => _`{unevaluatedProperty: ${params['unevaluatedProperty']}}`,
    },
    code(cxt) {
      const { gen, schema, data, errsCount, it } = cxt;
      const { props } = it;
      it.props = true;
      if (props === true || alwaysValidSchema(it, schema as object | boolean) === true) return;
      if (errsCount === undefined) throw new Error('the keyword has no count of errors');
      const check = (name: Name) => {
        if (schema === false) {
          cxt.setParams({ unevaluatedProperty: name });
          cxt.error();
          if (it.allErrors !== true) gen.break();
          return;
        }
        const valid = gen.name('valid');
        const member = { dataProp: name, dataPropType: Type.Str };
        cxt.subschema({ keyword: 'unevaluatedProperties', ...member }, valid);
        if (it.allErrors !== true) gen.if(not(valid), () => gen.break());
      };
      const isLeft = (name: Name): Code =>
        props instanceof Name
          ? _`!${isOwn(props, name)}`
          : and(_`true`, ...Object.keys(props ?? {}).map((known) => _`${name} !== ${known}`));
      const checkAll = () => gen.forIn('key', data, (name) => gen.if(isLeft(name), () => check(name)));
      if (props instanceof Name) gen.if(_`${props} !== true`, checkAll);
      else checkAll();
      cxt.ok(_`${errsCount} === ${ERRORS}`);
    },
  },
];

/** The number of errors in a compiled check. */
const ERRORS = new Name('errors');

function isOwn(object: Name, name: Code): Code {
  return _`Object.prototype.hasOwnProperty.call(${object}, ${name})`;
}

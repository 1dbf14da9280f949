import { _, type Ajv, type CodeKeywordDefinition } from 'ajv';
import { alwaysValidSchema, mergeEvaluated } from 'ajv/dist/compile/util.js';

/**
 * Makes Ajv check the rest of an array that is shorter than its tuple. Ajv 8.20 stops at the first missing
 * element: `prefixItems` with `contains` accepted the empty array.
 */
export function fixTuples(ajv: Ajv): void {
  ajv.removeKeyword(PREFIX_ITEMS.keyword as string);
  ajv.addKeyword(PREFIX_ITEMS);
}

const PREFIX_ITEMS: CodeKeywordDefinition = {
  keyword: 'prefixItems',
  type: 'array',
  schemaType: 'array',
  before: 'uniqueItems',
  code(cxt) {
    const { gen, data, keyword, it } = cxt;
    const schemas = cxt.schema as readonly (object | boolean)[];
    if (it.opts.unevaluated === true && it.items !== true)
      it.items = mergeEvaluated.items(gen, schemas.length, it.items, undefined);
    const length = gen.const('len', _`${data}.length`);
    for (const [at, schema] of schemas.entries()) {
      if (alwaysValidSchema(it, schema) === true) continue;
      const valid = gen.name('valid');
      gen.if(
        _`${length} > ${at}`,
        () => cxt.subschema({ keyword, schemaProp: at, dataProp: at }, valid),
        () => gen.var(valid, true),
      );
      cxt.ok(valid);
    }
  },
};

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { rows, type Sql } from '../sql/statement.ts';

/** The same path from `src` and from `dist`. One line for each object that `schema.sql` makes. */
const EXPECTED = new Set(
  readFileSync(fileURLToPath(new URL('../../../migrations/schema.txt', import.meta.url)), 'utf8')
    .split('\n')
    .filter(Boolean),
);
const EXPECTED_INDEXES = new Set(
  [...EXPECTED].filter((line) => line.startsWith('index ')).map((line) => definitionOf(line)),
);

/** The first id of an object that somebody made after the server's own. */
const FIRST_OWN_OID = 16_384;

/** The creation of a cluster uses lower transaction numbers; later changes have higher ones. */
const LAST_OF_INITDB = 2_000;

const TABLES = `SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity
  FROM pg_class AS c WHERE c.relnamespace = 'bunkms'::regnamespace AND c.relkind NOT IN ('i', 'I', 'S', 't', 'c')`;

/**
 * Everything attached to the tables, as one line each. A superuser's functions, operators and casts in
 * `pg_catalog` count as well, because each statement would use them.
 */
const SCHEMA = `WITH t AS (${TABLES})
SELECT CASE relkind WHEN 'r' THEN 'table ' ELSE 'relation of kind ' || relkind::text || ' ' END || relname
    || CASE relpersistence WHEN 'p' THEN '' ELSE ' not logged' END
    || CASE WHEN relrowsecurity OR relforcerowsecurity THEN ' with row security' ELSE '' END AS line FROM t
UNION ALL SELECT 'column ' || a.attname || ' on ' || t.relname || ': ' || format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
    || CASE a.attgenerated WHEN '' THEN '' ELSE ' generated' END
    || CASE a.attidentity WHEN '' THEN '' ELSE ' identity ' || a.attidentity::text END
    || CASE WHEN a.attcollation IN (0, 100) THEN '' ELSE ' collate ' || a.attcollation::regcollation::text END
    || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
  FROM t JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = t.oid AND d.adnum = a.attnum
UNION ALL SELECT 'constraint ' || c.conname || ' on ' || t.relname || ': ' || pg_get_constraintdef(c.oid, true)
  FROM t JOIN pg_constraint AS c ON (c.conrelid = t.oid OR c.confrelid = t.oid) AND c.contype <> 'n'
UNION ALL SELECT 'index ' || i.relname || ' on ' || t.relname || ': '
    || regexp_replace(pg_get_indexdef(x.indexrelid, 0, true), '^CREATE (UNIQUE )?INDEX .* ON (ONLY )?\\S+ ', '\\1')
    || CASE WHEN x.indisexclusion THEN ' exclusion' ELSE '' END
    || CASE WHEN x.indisvalid AND x.indisready AND x.indislive THEN '' ELSE ' invalid' END
    || CASE WHEN x.indexprs IS NULL AND x.indpred IS NULL AND NOT x.indisunique
        AND NOT EXISTS (SELECT 1 FROM unnest(x.indclass::oid[]) AS o (id) WHERE o.id >= ${FIRST_OWN_OID}) THEN ' [plain]' ELSE '' END
  FROM t JOIN pg_index AS x ON x.indrelid = t.oid JOIN pg_class AS i ON i.oid = x.indexrelid
UNION ALL SELECT 'trigger ' || g.tgname || ' on ' || t.relname
  FROM t JOIN pg_trigger AS g ON g.tgrelid = t.oid JOIN pg_proc AS p ON p.oid = g.tgfoid
  WHERE NOT g.tgisinternal OR p.proname NOT LIKE 'RI\\_FKey\\_%' OR p.pronamespace <> 'pg_catalog'::regnamespace
UNION ALL SELECT 'trigger ' || g.tgname || ' on ' || t.relname || ' is disabled'
  FROM t JOIN pg_trigger AS g ON g.tgrelid = t.oid WHERE g.tgisinternal AND g.tgenabled <> 'O'
UNION ALL SELECT 'rule ' || r.rulename || ' on ' || t.relname FROM t JOIN pg_rewrite AS r ON r.ev_class = t.oid
UNION ALL SELECT 'policy ' || p.polname || ' on ' || t.relname FROM t JOIN pg_policy AS p ON p.polrelid = t.oid
UNION ALL SELECT 'inheritance of ' || t.relname FROM t JOIN pg_inherits AS h ON t.oid IN (h.inhrelid, h.inhparent)
UNION ALL SELECT 'event trigger ' || e.evtname FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid
    JOIN pg_language AS l ON l.oid = p.prolang
  WHERE e.evtenabled <> 'D' AND (l.lanname <> 'c' OR e.evtevent = 'login')
UNION ALL SELECT 'replaced function ' || proname FROM pg_proc JOIN pg_language AS l ON l.oid = prolang
  WHERE pg_proc.oid < ${FIRST_OWN_OID} AND l.lanname NOT IN ('internal', 'c') AND pg_proc.xmin::text::bigint > ${LAST_OF_INITDB}
UNION ALL SELECT kind || ' ' || name FROM (
    SELECT 'pg_proc'::regclass AS class, oid, 'function' AS kind, proname::text AS name, pronamespace AS namespace FROM pg_proc
    UNION ALL SELECT 'pg_operator'::regclass, oid, 'operator', oprname::text, oprnamespace FROM pg_operator
    UNION ALL SELECT 'pg_type'::regclass, oid, 'type', typname::text, typnamespace FROM pg_type WHERE typtype NOT IN ('c') AND typcategory <> 'A'
    UNION ALL SELECT 'pg_cast'::regclass, oid, 'cast', castsource::regtype || ' to ' || casttarget::regtype, 'pg_catalog'::regnamespace FROM pg_cast
  ) AS o
  WHERE namespace IN ('bunkms'::regnamespace, 'pg_catalog'::regnamespace) AND o.oid >= ${FIRST_OWN_OID}
    AND NOT (namespace = 'pg_catalog'::regnamespace
      AND EXISTS (SELECT 1 FROM pg_depend WHERE classid = o.class AND objid = o.oid AND deptype = 'e'))`;

/** The lines of the schema, in order. */
export function* readSchema(): Sql<readonly string[]> {
  return (yield* rows(SCHEMA)).flatMap(({ line }) => (line === null ? [] : [String(line)])).sort();
}

/**
 * The differences between the schema and that of this release. Statistics, grants, publications and plain
 * indexes are allowed, and so is an index like one of the release under another name: it is made while an
 * operator rebuilds that one.
 */
export function* foreignObjects(): Sql<readonly string[]> {
  const first = yield* differences();
  if (first.length === 0) return [];
  // Definitions come from the present catalog, and names from the snapshot of the statement. So an index that
  // a rebuild has just replaced differs once.
  const again = new Set(yield* differences());
  return first.filter((line) => again.has(line));
}

function* differences(): Sql<readonly string[]> {
  const found = yield* readSchema();
  const lines = new Set(found);
  return [
    ...found.filter((line) => !EXPECTED.has(line) && !isAllowedIndex(line)),
    ...[...EXPECTED].filter((line) => !lines.has(line)).map((line) => `${line} is missing`),
  ];
}

function isAllowedIndex(line: string): boolean {
  return line.startsWith('index ') && (line.endsWith(' [plain]') || EXPECTED_INDEXES.has(definitionOf(line)));
}

/** An index without its name. One that is being built is not valid yet. */
function definitionOf(line: string): string {
  return line.slice(line.indexOf(' on ')).replace(' invalid', '');
}

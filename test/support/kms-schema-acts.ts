import type { Draw } from './draw.ts';
import type { KmsChange, TableName } from './kms-database.ts';

/** A change of the schema, and what takes it back. */
export interface SchemaAct {
  readonly told: string;
  readonly apply: readonly string[];
  readonly undo: readonly string[];
  /** A table whose name something else gets, and its name meanwhile. */
  readonly moved?: readonly [TableName, string];
  /** A table in `public` that keeps the rows which the act takes away. */
  readonly taken?: string;
}

const TARGETS = ['audit', 'audit', 'audit', 'keys', 'keys', 'key_versions', 'tokens'] as const;
type Target = (typeof TARGETS)[number];

/** Conditions on new rows, which hit some of them. */
const CONDITIONS: Readonly<Record<Target, readonly string[]>> = {
  audit: [
    "NEW.action = 'key.export'",
    "NEW.action = 'token.revoke'",
    "NEW.action LIKE 'key.%'",
    'NEW.seq % 2 = 0',
  ],
  keys: ["NEW.state <> 'enabled'", 'NEW.revision % 2 = 0', 'NEW.revision > 0'],
  key_versions: ["NEW.state = 'destroyed'", 'NEW.version = 1', 'NEW.version > 0'],
  tokens: ['NEW.revoked_at IS NOT NULL', 'NEW.number > 0', "NEW.typ = 'service'"],
};
/** What identifies a row as `NEW`. */
const OF_NEW: Readonly<Record<Target, string>> = {
  audit: 'seq = NEW.seq',
  keys: 'id = NEW.id',
  key_versions: 'key_id = NEW.key_id AND version = NEW.version',
  tokens: 'jti = NEW.jti',
};
const INDEXED: Readonly<Record<Target, string>> = {
  audit: 'action',
  keys: 'state',
  key_versions: 'state',
  tokens: 'typ',
};

interface Place {
  readonly draw: Draw;
  readonly change: KmsChange;
  readonly table: Target;
  /** Unused elsewhere. */
  readonly name: string;
}

type Planned = Omit<SchemaAct, 'told'> | undefined;
type Plan = (place: Place) => Planned | Promise<Planned>;

const triggerOf = ({ draw, table }: Place) => ({
  event: table === 'audit' ? 'INSERT' : draw.oneOf(['INSERT', 'UPDATE']),
  of: draw.oneOf(CONDITIONS[table]),
});

/** Replaces the text of a table in SQLite's own schema, whose readers read it again. */
async function rewritten(change: KmsChange, table: string, from: string, to: string): Promise<Planned> {
  const sql = await textOf(change, table);
  if (!sql.includes(from) || (to.length > from.length && sql.includes(to))) return undefined;
  return { apply: [written(table, sql.replace(from, to)), COUNTED], undo: [written(table, sql), COUNTED] };
}

async function textOf({ rows }: KmsChange, name: string): Promise<string> {
  const [found] = await rows(`SELECT sql FROM sqlite_schema WHERE name = '${name}'`);
  return String(found?.['sql']);
}

function written(name: string, sql: string): string {
  return `UPDATE sqlite_schema SET sql = '${sql.replaceAll("'", "''")}' WHERE name = '${name}'`;
}

/** Stands for a new number of SQLite's schema: see {@link runSchema}. */
const COUNTED = 'a new number of the schema';

/** Runs statements of an act. */
export async function runSchema(change: KmsChange, statements: readonly string[]): Promise<void> {
  for (const sql of statements) await change.run(sql === COUNTED ? await counted(change) : sql);
}

/** SQLite does not count edits of its schema itself, and a number must not come twice. */
async function counted({ rows }: KmsChange): Promise<string> {
  const [found] = await rows('PRAGMA schema_version');
  return `PRAGMA schema_version = ${Number(found?.['schema_version']) + 100}`;
}

/** An added column, and the exact former text of its table. */
async function added({ change, table }: Place, column: string, name: string): Promise<Planned> {
  const sql = await textOf(change, table);
  return {
    apply: [`ALTER TABLE ${table} ADD COLUMN ${name} ${column}`],
    undo: [`ALTER TABLE ${table} DROP COLUMN ${name}`, written(table, sql), COUNTED],
  };
}

const SQLITE_ACTS: Readonly<Record<string, Plan>> = {
  'a trigger before': (place) => {
    const { event, of } = triggerOf(place);
    const { name, table } = place;
    return {
      apply: [
        `CREATE TRIGGER ${name} BEFORE ${event} ON ${table} WHEN ${of} BEGIN SELECT RAISE(IGNORE); END`,
      ],
      undo: [`DROP TRIGGER ${name}`],
    };
  },
  'a trigger after': (place) => {
    const { event, of } = triggerOf(place);
    const { name, table } = place;
    return {
      apply: [
        `CREATE TRIGGER ${name} AFTER ${event} ON ${table} WHEN ${of} BEGIN DELETE FROM ${table} WHERE ${OF_NEW[table]}; END`,
      ],
      undo: [`DROP TRIGGER ${name}`],
    };
  },
  'a view in place of a table': async ({ draw, change, table, name }) => {
    // A new name changes the texts of the indexes and of what refers to the table as well.
    const texts = await change.rows("SELECT name, sql FROM sqlite_schema WHERE sql <> ''");
    const condition = draw.oneOf(CONDITIONS[table]).replaceAll('NEW.', '');
    return {
      apply: [
        `ALTER TABLE ${table} RENAME TO ${name}`,
        `CREATE VIEW ${table} AS SELECT * FROM ${name} WHERE NOT (${condition})`,
        ...(draw.chance(0.5)
          ? [`CREATE TRIGGER ${name}_in INSTEAD OF INSERT ON ${table} BEGIN SELECT 1; END`]
          : []),
      ],
      undo: [
        `DROP VIEW ${table}`,
        `ALTER TABLE ${name} RENAME TO ${table}`,
        ...texts.map((of) => written(String(of['name']), String(of['sql']))),
        COUNTED,
      ],
      moved: [table, name],
    };
  },
  'an index': ({ draw, table, name }) => ({
    apply: [
      draw.oneOf([
        `CREATE UNIQUE INDEX ${name} ON ${table} (${INDEXED[table]}) WHERE rowid < 0`,
        `CREATE UNIQUE INDEX ${name} ON ${table} (${INDEXED[table]}, rowid)`,
        `CREATE INDEX ${name} ON ${table} (${INDEXED[table]}) WHERE ${INDEXED[table]} = 'x'`,
        `CREATE INDEX ${name} ON ${table} (length(${INDEXED[table]}))`,
      ]),
    ],
    undo: [`DROP INDEX ${name}`],
  }),
  'an index less': async ({ draw, change }) => {
    const found = await change.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql <> ''");
    const index = draw.maybeOf(found);
    return index && { apply: [`DROP INDEX ${index['name']}`], undo: [String(index['sql'])] };
  },
  'an index that lies': async ({ draw, change }) => {
    const name = draw.oneOf(['audit_key_changes', 'audit_revocations', 'audit_tokens', 'audit_restores']);
    const sql = await textOf(change, name);
    if (!sql.startsWith('CREATE INDEX')) return undefined;
    return {
      apply: [`DROP INDEX ${name}`, `${sql} AND seq < ${draw.below(30)}`, written(name, sql), COUNTED],
      undo: [`DROP INDEX ${name}`, sql],
    };
  },
  'a constraint less': ({ change, table }) => rewritten(change, table, ' NOT NULL', ''),
  'a strict type less': ({ change, table }) => rewritten(change, table, ') STRICT', ')'),
  'a default': ({ change }) => rewritten(change, 'audit', 'actor TEXT', "actor TEXT DEFAULT 'x'"),
  'a check': ({ change, draw }) => {
    const action = draw.oneOf(['key.export', 'token.revoke', 'key.disable']);
    return rewritten(change, 'audit', 'action TEXT', `action TEXT CHECK (action <> '${action}')`);
  },
  'a check of conflicts': ({ change }) =>
    rewritten(change, 'audit', 'seq INTEGER PRIMARY KEY', 'seq INTEGER PRIMARY KEY ON CONFLICT IGNORE'),
  'a column': (place) => added(place, "TEXT DEFAULT 'x'", place.name),
  'a generated column': (place) =>
    added(place, `TEXT GENERATED ALWAYS AS (${INDEXED[place.table]})`, place.name),
  'another table': ({ name }) => ({
    apply: [`CREATE TABLE ${name} (id INTEGER PRIMARY KEY)`],
    undo: [`DROP TABLE ${name}`],
  }),
};

/** What a trigger does with a row to betray BunKMS. `%` is what identifies the row. */
const BETRAYALS: Readonly<Record<Target, string>> = {
  audit: "NEW.detail := '{}';",
  keys: "NEW.state := 'enabled';",
  key_versions: "NEW.state := 'enabled';",
  tokens: 'NEW.revoked_at := NULL;',
};
/** The columns that changes of a row change. */
const CHANGED: Readonly<Record<Target, readonly string[]>> = {
  audit: ['detail'],
  keys: ['state', 'revision', 'version', 'version_digests', 'due_at', 'destroyed_at', 'kek_ids'],
  key_versions: ['state', 'wrapped', 'destroyed_at'],
  tokens: ['revoked_at'],
};

/** A trigger of PostgreSQL, with its function, and a table that keeps the rows which it takes away. */
function planted(place: Place, when: 'BEFORE' | 'AFTER' | 'DEFERRED', body: string): Planned {
  const { name, table } = place;
  const { event, of } = triggerOf(place);
  // What a deferred trigger undoes at the commit runs it again, at the same depth: without end.
  const isOwn = `TG_OP = 'UPDATE' AND EXISTS (SELECT FROM public.${name}_taken WHERE taken = to_jsonb(OLD))`;
  const keep = `INSERT INTO public.${name}_taken (of, taken) VALUES ('${table}', to_jsonb(NEW));`;
  const kind =
    when === 'DEFERRED'
      ? `CREATE CONSTRAINT TRIGGER ${name} AFTER ${event} ON ${table} DEFERRABLE INITIALLY DEFERRED`
      : `CREATE TRIGGER ${name} ${when} ${event} ON ${table}`;
  return {
    apply: [
      `CREATE TABLE public.${name}_taken (at serial, of text, taken jsonb)`,
      `GRANT ALL ON public.${name}_taken, public.${name}_taken_at_seq TO public`,
      `CREATE FUNCTION public.${name}() RETURNS trigger LANGUAGE plpgsql AS
       $$BEGIN IF pg_trigger_depth() < 2 AND ${of} AND NOT (${isOwn}) THEN ${keep} ${body} END IF; RETURN NEW; END$$`,
      `${kind} FOR EACH ROW EXECUTE FUNCTION public.${name}()`,
    ],
    undo: [`DROP TRIGGER ${name} ON ${table}`, `DROP FUNCTION public.${name}`],
    taken: `${name}_taken`,
  };
}

/** What undoes the write of a row after it. */
function undone(table: Target): string {
  const former = CHANGED[table].map((column) => `${column} = OLD.${column}`).join(', ');
  return `IF TG_OP = 'INSERT' THEN DELETE FROM bunkms.${table} WHERE ${OF_NEW[table]};
    ELSE UPDATE bunkms.${table} SET ${former} WHERE ${OF_NEW[table]}; END IF;`;
}

/** A definition of an index or a constraint that the schema has. */
async function lessOf(
  { change, draw }: Place,
  sql: string,
  drop: (of: string, name: string) => string,
): Promise<Planned> {
  const found = draw.maybeOf(await change.rows(sql));
  if (found === undefined) return undefined;
  return {
    apply: [drop(String(found['of']), String(found['name']))],
    undo: [String(found['definition'])],
  };
}

const POSTGRES_ACTS: Readonly<Record<string, Plan>> = {
  'a trigger before that drops': (place) =>
    planted(place, 'BEFORE', "IF TG_OP = 'INSERT' THEN RETURN NULL; ELSE RETURN OLD; END IF;"),
  'a trigger before that changes': (place) => planted(place, 'BEFORE', BETRAYALS[place.table]),
  'a trigger after that undoes': (place) => planted(place, 'AFTER', undone(place.table)),
  'a deferred trigger that undoes': (place) => planted(place, 'DEFERRED', undone(place.table)),
  'a rule': ({ draw, table, name }) => ({
    apply: [
      `CREATE RULE ${name} AS ON ${draw.oneOf(['INSERT', 'UPDATE', 'DELETE'])} TO ${table} DO ${draw.oneOf([
        'INSTEAD NOTHING',
        'ALSO NOTHING',
      ])}`,
    ],
    undo: [`DROP RULE ${name} ON ${table}`],
  }),
  'row security': ({ draw, table, name }) => ({
    apply: [
      `CREATE POLICY ${name} ON ${table} USING (${draw.oneOf(CONDITIONS[table]).replaceAll('NEW.', '')})`,
      ...(draw.chance(0.7)
        ? [`ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY`, `ALTER TABLE ${table} FORCE ROW LEVEL SECURITY`]
        : []),
    ],
    undo: [
      `ALTER TABLE ${table} NO FORCE ROW LEVEL SECURITY`,
      `ALTER TABLE ${table} DISABLE ROW LEVEL SECURITY`,
      `DROP POLICY ${name} ON ${table}`,
    ],
  }),
  'a view in place of a table': ({ draw, table, name }) => ({
    apply: [
      `ALTER TABLE ${table} RENAME TO ${name}`,
      `CREATE VIEW ${table} AS SELECT * FROM ${name} WHERE NOT (${draw.oneOf(CONDITIONS[table]).replaceAll('NEW.', '')})`,
      `GRANT ALL ON ${table} TO public`,
    ],
    undo: [`DROP VIEW ${table}`, `ALTER TABLE ${name} RENAME TO ${table}`],
    moved: [table, name],
  }),
  'a column': ({ draw, table, name }) => ({
    apply: [
      `ALTER TABLE ${table} ADD COLUMN ${name} text ${draw.oneOf([`GENERATED ALWAYS AS (${INDEXED[table]}) STORED`, "DEFAULT 'x'", ''])}`,
    ],
    undo: [`ALTER TABLE ${table} DROP COLUMN ${name}`],
  }),
  'a default': ({ draw }) => {
    const column = draw.oneOf(['actor', 'code', 'jti', 'source']);
    return {
      apply: [`ALTER TABLE audit ALTER COLUMN ${column} SET DEFAULT 'x'`],
      undo: [`ALTER TABLE audit ALTER COLUMN ${column} DROP DEFAULT`],
    };
  },
  'a check': ({ draw, table, name }) => ({
    apply: [
      `ALTER TABLE ${table} ADD CONSTRAINT ${name} CHECK (NOT (${draw.oneOf(CONDITIONS[table]).replaceAll('NEW.', '')})) NOT VALID`,
    ],
    undo: [`ALTER TABLE ${table} DROP CONSTRAINT ${name}`],
  }),
  'an index': ({ draw, table, name }) => {
    const of = INDEXED[table];
    const index = draw.oneOf([
      `UNIQUE INDEX ${name} ON ${table} (${of}) WHERE ${of} = 'x'`,
      `INDEX ${name} ON ${table} (${of}) WHERE ${of} = 'x'`,
      `INDEX ${name} ON ${table} (public.${name}(${of}))`,
    ]);
    const drops = `DELETE FROM bunkms.audit WHERE action = 'key.export' AND seq = (SELECT max(seq) FROM bunkms.audit)`;
    return {
      apply: [
        `CREATE FUNCTION public.${name}(of text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
         $$BEGIN IF of = 'x' THEN ${drops}; END IF; RETURN of; END$$`,
        `CREATE ${index}`,
      ],
      undo: [`DROP INDEX ${name}`, `DROP FUNCTION public.${name}`],
    };
  },
  'an index less': (place) =>
    lessOf(
      place,
      `SELECT c.relname AS name, '' AS of, pg_get_indexdef(c.oid) AS definition FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
       WHERE relnamespace = 'bunkms'::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)`,
      (_, name) => `DROP INDEX ${name}`,
    ),
  'a constraint less': (place) =>
    lessOf(
      place,
      `SELECT conname AS name, conrelid::regclass AS of,
         format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS definition
       FROM pg_constraint WHERE connamespace = 'bunkms'::regnamespace AND contype <> 'n'
         AND conname NOT IN (SELECT 'keys_pkey')`,
      (of, name) => `ALTER TABLE ${of} DROP CONSTRAINT ${name}`,
    ),
  'a null allowed': ({ draw }) => {
    const column = draw.oneOf(['hash', 'prev_hash', 'action', 'time']);
    return {
      apply: [`ALTER TABLE audit ALTER COLUMN ${column} DROP NOT NULL`],
      undo: [`ALTER TABLE audit ALTER COLUMN ${column} SET NOT NULL`],
    };
  },
  'another type': () => ({
    apply: ['ALTER TABLE audit ALTER COLUMN code TYPE varchar(200)'],
    undo: ['ALTER TABLE audit ALTER COLUMN code TYPE text'],
  }),
  'a function': ({ draw }) => {
    const [signature, result] = draw.oneOf([
      ['strpos(text, character varying)', 'integer'],
      ['substring(character varying, text)', 'text'],
      ['length(character varying)', 'integer'],
    ] as const);
    return {
      apply: [
        `CREATE FUNCTION bunkms.${signature} RETURNS ${result} LANGUAGE sql AS 'SELECT NULL::${result}'`,
      ],
      undo: [`DROP FUNCTION bunkms.${signature}`],
    };
  },
  'an operator': ({ draw, name }) => {
    const [left, right] = draw.oneOf([
      ['text', 'character varying'],
      ['bigint', 'numeric'],
      ['integer', 'text'],
    ] as const);
    return {
      apply: [
        `CREATE FUNCTION public.${name}(${left}, ${right}) RETURNS boolean LANGUAGE sql AS 'SELECT false'`,
        `CREATE OPERATOR bunkms.= (LEFTARG = ${left}, RIGHTARG = ${right}, FUNCTION = public.${name})`,
      ],
      undo: [`DROP OPERATOR bunkms.= (${left}, ${right})`, `DROP FUNCTION public.${name}`],
    };
  },
  'a table without log': ({ draw }) => {
    const table = draw.oneOf(['audit', 'tokens', 'key_versions']);
    return { apply: [`ALTER TABLE ${table} SET UNLOGGED`], undo: [`ALTER TABLE ${table} SET LOGGED`] };
  },
  'an heir': ({ draw, table, name }) => ({
    apply: [
      `CREATE TABLE public.${name} () INHERITS (${table})`,
      `GRANT ALL ON public.${name} TO public`,
      ...(draw.chance(0.7)
        ? [`INSERT INTO public.${name} SELECT * FROM ONLY ${table} ORDER BY random() LIMIT 1`]
        : []),
    ],
    undo: [`DROP TABLE public.${name}`],
  }),
  'a disabled trigger': () => ({
    apply: ['ALTER TABLE key_versions DISABLE TRIGGER ALL'],
    undo: ['ALTER TABLE key_versions ENABLE TRIGGER ALL'],
  }),
  'an event trigger': ({ name }) => ({
    apply: [
      `CREATE FUNCTION public.${name}() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
      `CREATE EVENT TRIGGER ${name} ON ddl_command_end EXECUTE FUNCTION public.${name}()`,
    ],
    undo: [`DROP EVENT TRIGGER ${name}`, `DROP FUNCTION public.${name}`],
  }),
};

/** A random act on the schema; undefined when it finds nothing to do. */
export async function schemaAct(
  kind: 'sqlite' | 'postgres',
  place: Omit<Place, 'table'>,
): Promise<SchemaAct | undefined> {
  const acts = kind === 'sqlite' ? SQLITE_ACTS : POSTGRES_ACTS;
  const act = place.draw.oneOf(Object.keys(acts));
  const table = place.draw.oneOf(TARGETS);
  const planned = await acts[act]?.({ ...place, table });
  return planned && { ...planned, told: `${act} on ${table}: ${planned.apply.join('; ')}` };
}

import { testStorage } from './storage.ts';

/** A trigger that an attacker plants, in the syntax of each engine. */
export interface PlantedTrigger {
  readonly table: 'audit' | 'keys' | 'key_versions' | 'tokens';
  readonly event: 'INSERT' | 'UPDATE';
  /**
   * `before`: drops the row. `deferred`: on PostgreSQL at the commit, which no statement of the transaction
   * sees.
   */
  readonly when: 'before' | 'deferred';
  /** A condition on the row as `NEW`. */
  readonly of: string;
}

/** What a change of a key's state changes. */
const KEY_COLUMNS = ['state', 'revision', 'version_digests', 'due_at', 'destroyed_at', 'intended_at'];

/** What undoes the event: the deletion of a new row, or the former row. */
function undo({ table, event }: PlantedTrigger): string {
  const key = { audit: 'seq', keys: 'id', key_versions: 'key_id', tokens: 'jti' }[table];
  const columns = table === 'keys' ? KEY_COLUMNS : ['state', 'wrapped', 'destroyed_at'];
  if (event === 'UPDATE')
    return `UPDATE bunkms.${table} SET ${columns.map((name) => `${name} = OLD.${name}`).join(', ')}
      WHERE ${key} = NEW.${key}; RETURN NULL;`;
  return `DELETE FROM bunkms.${table} WHERE ${key} = NEW.${key}; RETURN NULL;`;
}

/** Plants it. @returns removes it again. */
export async function plant(dataDir: string, trigger: PlantedTrigger): Promise<() => Promise<void>> {
  const { table, event, when, of } = trigger;
  const storage = testStorage();
  if (storage.kind === 'sqlite') {
    await storage.edit(
      dataDir,
      `CREATE TRIGGER planted BEFORE ${event} ON ${table} WHEN ${of} BEGIN SELECT RAISE(IGNORE); END`,
    );
    return () => storage.edit(dataDir, 'DROP TRIGGER planted');
  }
  const body = when === 'before' ? `RETURN ${event === 'UPDATE' ? 'OLD' : 'NULL'};` : undo(trigger);
  const pass = when === 'before' ? 'RETURN NEW;' : 'RETURN NULL;';
  const kind =
    when === 'before'
      ? `CREATE TRIGGER planted BEFORE ${event} ON ${table}`
      : `CREATE CONSTRAINT TRIGGER planted AFTER ${event} ON ${table} DEFERRABLE INITIALLY DEFERRED`;
  await storage.edit(
    dataDir,
    `CREATE FUNCTION public.planted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF ${of} THEN ${body} END IF; ${pass} END$$;
     ${kind} FOR EACH ROW EXECUTE FUNCTION public.planted()`,
  );
  return () => storage.edit(dataDir, `DROP TRIGGER planted ON ${table}; DROP FUNCTION public.planted`);
}

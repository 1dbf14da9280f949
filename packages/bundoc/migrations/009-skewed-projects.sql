-- works with builds from: 8

-- Projects differ in size by orders of magnitude. By the statistics of many small ones, a planner expects one
-- row in a project, and reads all rows of a large one in place of an index's. Without statistics it expects
-- one row of each 200 of the table.
ALTER TABLE bundoc.documents ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.used_keys ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.blind_entries ALTER COLUMN project SET STATISTICS 0;

-- While a table is small, each of its indexes looks as good as any other, and the server keeps the plan. A
-- look-up by name or token does not imply these conditions, so it cannot use these indexes.
DROP INDEX bundoc.documents_by_change;
CREATE UNIQUE INDEX documents_by_change ON bundoc.documents (project, seq) WHERE seq > 0;
DROP INDEX bundoc.used_keys_by_time;
CREATE INDEX used_keys_by_time ON bundoc.used_keys (project, at_ms) WHERE at_ms > 0;

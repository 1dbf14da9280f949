-- works with builds from: 8

-- Projects differ in size by orders of magnitude. By the statistics of many small ones, a planner expects one row in a project,
-- and reads all rows of a large one in place of an index's. Without statistics it expects one row of each 200 of the table.
ALTER TABLE bundoc.documents ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.used_keys ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.blind_entries ALTER COLUMN project SET STATISTICS 0;

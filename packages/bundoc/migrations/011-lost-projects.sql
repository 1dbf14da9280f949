-- works with builds from: 8

-- Projects whose keys this database holds and whose rows it lost: those of an older copy that took over.
-- Each answers project_damaged until an administrator accepts the loss. A row can refuse a project that has
-- no rows, and nothing else.
CREATE TABLE bundoc.lost_projects (
  project text PRIMARY KEY CHECK (octet_length(project) <= 63)
);

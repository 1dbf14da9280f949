-- works with builds from: 8

-- Which transactions took effect: asked by a node that lost the connection while one was being committed. One holds commits
-- of several projects, so no project's deletion may remove its row. Times are the server's.
CREATE TABLE bundoc.group_commits (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now()
);
DROP TABLE bundoc.commits;

-- A transaction changes a count of seals under its project's lock. Earlier builds reserved seals without that lock and would
-- undo such a change, so they must not run beside this one. What they had reserved counts as sealed.

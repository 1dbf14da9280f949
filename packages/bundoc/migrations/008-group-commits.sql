-- works with builds from: 8

-- Which transactions took effect: asked by a node that lost the connection while one was being committed. One holds commits of several projects, so that
-- no project's deletion may remove its row. Times are the server's.
CREATE TABLE bundoc.group_commits (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now()
);
DROP TABLE bundoc.commits;

-- A count of seals is changed under the project's lock alone: builds of before, which reserved seals without it, would undo each other's counts.

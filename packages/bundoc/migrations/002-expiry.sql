-- works with builds from: 1

-- Projects that have collections whose documents expire, and when one of the nodes looks at each next.
CREATE TABLE bundoc.expiry (
  project text COLLATE "C" PRIMARY KEY,
  -- Milliseconds since 1970.
  due_ms bigint NOT NULL
);
CREATE INDEX expiry_due ON bundoc.expiry (due_ms);

-- works with builds from: 4

-- Which storage this is, and in which generation: the same text as storage.json of the files engine.
CREATE TABLE bundoc.storage (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  file text NOT NULL,
  -- By a node; each hour one of them advances the generation.
  changed_at timestamptz NOT NULL DEFAULT now()
);

-- What says that a project is not here, or not any more, beside its file or where that is gone. It can refuse requests, and nothing else.
ALTER TABLE bundoc.projects
  ADD COLUMN marker text,
  ALTER COLUMN file DROP NOT NULL,
  ADD CHECK (file IS NOT NULL OR marker IS NOT NULL);

-- works with builds from: 7

-- How often a version of the key has sealed, sealed under that version: a count that anybody could raise would make nodes have the key rotated. Counts of
-- before are nobody's word, and no release wrote any.
ALTER TABLE bundoc.key_versions DROP COLUMN seals;
-- Reserved, which is at least as many as were made. NULL while nothing is.
ALTER TABLE bundoc.key_versions ADD COLUMN seals bytea;

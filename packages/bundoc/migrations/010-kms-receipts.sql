-- works with builds from: 8

-- The newest receipts of BunKMS: the same text as kms-receipts.json of the files engine. Nodes change it under the lock of
-- the row, so that none replaces a newer receipt of another one.
CREATE TABLE bundoc.kms_receipts (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  file text NOT NULL CHECK (octet_length(file) <= 65536)
);

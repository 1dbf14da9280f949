-- Reads of keys are frequent, too.
DROP INDEX audit_but_bulk;
CREATE INDEX audit_but_bulk ON audit (seq)
  WHERE action NOT IN ('key.export', 'key.encrypt', 'key.decrypt', 'key.rewrap', 'kek.rewrap', 'key.read', 'key.list', 'key.leases');

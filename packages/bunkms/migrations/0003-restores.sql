-- The latest restore is looked up each second.
CREATE INDEX audit_restores ON audit ((-seq)) WHERE action = 'chain.restored';

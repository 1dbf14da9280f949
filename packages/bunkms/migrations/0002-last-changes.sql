-- The latest change of a key, which every use of it asks for. Ordered by a number that no other index has: by "seq" itself the planner may rather walk the
-- whole chain backwards from its end, and does when there are few keys. "audit_key_changes" serves nodes of the former release until a later migration.
CREATE INDEX audit_last_changes ON audit (key, (-seq)) WHERE strpos(detail, '"revision":') > 0;

-- Whether a token is live is asked of the audit chain, with each request. Members of "detail" are found by their text: in JSON no string can pass for one.
ALTER TABLE tokens ADD COLUMN issuer text COLLATE "C";
ALTER TABLE tokens ADD COLUMN may_issue text;
DROP INDEX tokens_revoked;
CREATE INDEX audit_tokens ON audit (substring(detail from '"token":"([^"]*)"'))
  WHERE action IN ('token.issue', 'token.renew', 'token.restore');
CREATE INDEX audit_token_families ON audit (substring(detail from '"family":"([^"]*)"'))
  WHERE action IN ('token.issue', 'token.renew', 'token.restore');
CREATE INDEX audit_token_issuers ON audit (substring(detail from '"issuer":"([^"]*)"'))
  WHERE action IN ('token.issue', 'token.renew', 'token.restore');
CREATE INDEX audit_revocations ON audit (substring(detail from '"family":"([^"]*)"')) WHERE action = 'token.revoke';
CREATE INDEX audit_revocations_by_end ON audit (substring(detail from '"expires_at":"([^"]*)"'), seq)
  WHERE action = 'token.revoke';

-- A function of astra_quota_inside is nobody's until it is given to somebody. For the other owners that is so since 0001 and 0023; astra_quota_inside's first function of its own
-- (holds_withdraw, 0023) came with PostgreSQL's default, under which each function's role could have told another's turns to stop, within the workspace that its proof names.

SET LOCAL ROLE astra_quota_inside;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION astra.holds_withdraw(text, text) FROM PUBLIC;

-- The constraint keeps its name, by which the version before knows a taken address. Takes the same time however many accounts
-- there are.
SET LOCAL lock_timeout = '2s';

ALTER TABLE accounts DROP CONSTRAINT accounts_email_unique;
ALTER TABLE accounts ADD CONSTRAINT accounts_email_unique UNIQUE USING INDEX accounts_email_of_tenant;

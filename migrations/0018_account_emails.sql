-- The constraint keeps its name, by which the version before knows a taken address. Takes the same time however many accounts
-- there are.
SET LOCAL lock_timeout = '2s';

-- The next statement puts one in its place that is the same for the accounts that old programs make.
-- squawk-ignore ban-drop-constraint
ALTER TABLE accounts DROP CONSTRAINT accounts_email_unique;
ALTER TABLE accounts ADD CONSTRAINT accounts_email_unique UNIQUE USING INDEX accounts_email_of_tenant;

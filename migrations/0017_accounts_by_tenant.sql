-- no-transaction
-- E-mail addresses are unique within a tenant. Built beside running writers.
CREATE UNIQUE INDEX CONCURRENTLY accounts_email_of_tenant ON accounts (tenant_id, email);

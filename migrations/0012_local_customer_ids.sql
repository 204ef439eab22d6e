-- Customer ids of accounts that are opened beside an external identity provider: from 2^52 to 2^53 - 1, which JSON numbers
-- hold exactly. The provider's tokens cannot name an id of this range (api/src/auth/accounts.rs, LOCAL_IDS).

CREATE SEQUENCE local_customer_ids AS bigint
    MINVALUE 4503599627370496 MAXVALUE 9007199254740991;

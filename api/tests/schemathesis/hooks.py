"""A file of NDJSON is a text for schemathesis: its lines are checked by the tests of imports and exports."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")

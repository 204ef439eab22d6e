"""`check_migrations.py` finds each kind of migration that breaks old programs or blocks others, and accepts what does neither."""

import tempfile
import unittest
from pathlib import Path

from check_migrations import check

CHANGELOG = "## [Unreleased]\n\n## [0.2.0] - 2027-01-01\n"
LIMIT = "SET LOCAL lock_timeout = '1s';\n"


def faults(sql: str, name: str = "0015_new.sql") -> str:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(sql)
        return "\n".join(check(Path(folder), CHANGELOG))


class Migrations(unittest.TestCase):
    def refused(self, sql: str, *expected: str) -> None:
        found = faults(sql)
        for text in expected:
            self.assertIn(text, found, sql)

    def accepted(self, sql: str) -> None:
        self.assertEqual(faults(sql), "", sql)

    def test_what_adds_is_accepted(self):
        self.accepted(LIMIT + "ALTER TABLE orders ADD COLUMN reference text;\n")
        self.accepted(LIMIT + "ALTER TABLE orders ADD COLUMN tenant bigint NOT NULL DEFAULT 1;\n")
        self.accepted(LIMIT + "CREATE TABLE t (id bigint PRIMARY KEY, x text NOT NULL);\nCREATE INDEX t_by_x ON t (x);\n")
        self.accepted(LIMIT + "ALTER TABLE orders ADD CONSTRAINT c CHECK (reference <> '') NOT VALID;\n")
        self.accepted(LIMIT + "ALTER TABLE orders VALIDATE CONSTRAINT c;\n")
        self.accepted("-- no-transaction\nCREATE INDEX CONCURRENTLY orders_by_reference ON orders (reference);\n")
        self.accepted(LIMIT + "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$\n    UPDATE relay SET epoch = 1;\n$$;\n")

    def test_what_old_programs_do_not_survive(self):
        for statement, rule in {
            "ALTER TABLE orders DROP COLUMN note;": "ban-drop-column",
            "DROP TABLE cache_debts;": "ban-drop-table",
            "DROP FUNCTION outbox_missing(int);": "ban-drop-function",
            "ALTER TABLE orders ALTER COLUMN note DROP DEFAULT;": "ban-drop-default",
            "ALTER TABLE orders DROP CONSTRAINT c;": "ban-drop-constraint",
            "ALTER TABLE orders RENAME COLUMN note TO notes;": "renaming-column",
            "ALTER TABLE orders RENAME TO purchases;": "renaming-table",
            "ALTER TABLE orders ALTER COLUMN note TYPE bytea USING note::bytea;": "changing-column-type",
        }.items():
            self.refused(LIMIT + statement, rule)
            self.refused(f"{LIMIT}-- Nobody needs it.\n-- squawk-ignore {rule}\n{statement}\n", "must say `Unused since VERSION`")
            self.refused(f"{LIMIT}-- Unused since 0.3.0.\n-- squawk-ignore {rule}\n{statement}\n", "with a released version")
            self.accepted(f"{LIMIT}-- Unused since 0.2.0.\n-- squawk-ignore {rule}\n{statement}\n")

    def test_a_constraint_that_is_replaced(self):
        drop = "-- The next one is wider.\n-- squawk-ignore ban-drop-constraint\nALTER TABLE orders DROP CONSTRAINT c;\n"
        self.accepted(f"{LIMIT}{drop}ALTER TABLE orders ADD CONSTRAINT c CHECK (note <> '') NOT VALID;\n")
        self.refused(f"{LIMIT}{drop}ALTER TABLE orders ADD CONSTRAINT d CHECK (note <> '') NOT VALID;\n", "must say `Unused since VERSION`")

    def test_columns_that_old_programs_do_not_fill(self):
        self.refused(LIMIT + "ALTER TABLE orders ADD COLUMN tenant bigint NOT NULL;", "adding-required-field")
        self.refused(LIMIT + "ALTER TABLE orders ALTER COLUMN note SET NOT NULL;", "adding-not-nullable-field")

    def test_what_blocks_a_table_while_it_is_read_or_rewritten(self):
        self.refused(LIMIT + "CREATE INDEX i ON orders (note);", "require-concurrent-index-creation")
        self.refused(LIMIT + "DROP INDEX orders_by_creation;", "require-concurrent-index-deletion")
        self.refused(LIMIT + "ALTER TABLE orders ADD CONSTRAINT c CHECK (note <> '');", "constraint-missing-not-valid")
        self.refused(LIMIT + "ALTER TABLE orders ADD CONSTRAINT c UNIQUE (note);", "disallowed-unique-constraint")
        self.refused(LIMIT + "ALTER TABLE orders ADD COLUMN u uuid DEFAULT gen_random_uuid();", "adding-field-with-default")
        self.accepted(LIMIT + "-- A table of one row.\n-- squawk-ignore require-concurrent-index-creation\nCREATE INDEX i ON relay (epoch);\n")
        self.refused(LIMIT + "-- squawk-ignore require-concurrent-index-creation\nCREATE INDEX i ON relay (epoch);\n", "must give the reason")
        self.refused(LIMIT + "-- All of it.\n-- squawk-ignore-file\nCREATE INDEX i ON relay (epoch);\n", "for one statement")

    def test_locks_without_a_short_limit(self):
        self.refused("ALTER TABLE orders ADD COLUMN reference text;", "require-lock-timeout")
        for limit in ("5s", "3000", "1min", "0"):
            self.refused(f"SET LOCAL lock_timeout = '{limit}';\nALTER TABLE orders ADD COLUMN reference text;", "at most 2s")

    def test_concurrently_stands_alone_outside_of_a_transaction(self):
        self.refused("CREATE INDEX CONCURRENTLY i ON orders (note);\n", "go together")
        self.refused("-- no-transaction\nALTER TABLE orders ADD COLUMN reference text;\n", "go together")
        self.refused("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON orders (note);\nSELECT 1;\n", "a file of its own")

    def test_rows_that_are_changed_in_one_go(self):
        for statement in ("UPDATE orders SET note = '';", "DELETE FROM orders;", "TRUNCATE dead_letters;"):
            self.refused(LIMIT + statement, "let the program do it in batches")
        self.accepted(LIMIT + "-- Few rows: one.\nUPDATE relay SET epoch = 1;\n")

    def test_two_migrations_with_one_number(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("0015_a.sql", "0015_b.sql"):
                Path(folder, name).write_text("SELECT 1;\n")
            self.assertEqual(check(Path(folder), CHANGELOG), ["migrations: two have the number 0015"])

    def test_older_migrations_stay_as_they_are(self):
        self.assertEqual(faults("DROP TABLE orders;", "0014_old.sql"), "")


if __name__ == "__main__":
    unittest.main()

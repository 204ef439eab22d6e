"""`check_layout.py` finds what it is for, in small trees that are broken on purpose, and accepts what is sound."""

import tempfile
import unittest
from pathlib import Path

from check_layout import check


def faults(files: dict[str, str]) -> str:
    """What the check reports about a tree of these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return "\n".join(check(Path(folder)))


class ImportCircles(unittest.TestCase):
    LIB = "pub mod one;\npub mod two;\npub mod three;\n"
    SOUND = {"shared/src/lib.rs": LIB, "shared/src/one.rs": "pub struct One;", "shared/src/three.rs": "", "shared/src/two.rs": ""}

    def expect(self, files: dict[str, str], *expected: str) -> None:
        found = faults(self.SOUND | {f"shared/src/{name}": text for name, text in files.items()})
        if expected:
            for text in expected:
                self.assertIn(text, found)
        else:
            self.assertEqual(found, "")

    def test_one_direction_is_accepted(self):
        self.expect({"two.rs": "use crate::one::One;\npub fn two(_: One) {}"})

    def test_two_files_that_use_each_other(self):
        self.expect(
            {"one.rs": "use crate::two::two;\npub struct One;", "two.rs": "use super::one::One;\npub fn two(_: One) {}"},
            "import circle of 2 files",
            "shared/src/one.rs uses two of shared/src/two.rs",
            "shared/src/two.rs uses One of shared/src/one.rs",
        )

    def test_a_circle_over_a_third_file_in_nested_braces(self):
        self.expect(
            {
                "one.rs": "use crate::{two::{self, Two as Other}};\npub struct One;",
                "two.rs": "use crate::three::*;\npub struct Two(Three);",
                "three.rs": "pub struct Three; fn f() { let _ = crate::one::One; }",
            },
            "import circle of 3 files",
        )

    def test_a_circle_over_the_module_alone(self):
        self.expect(
            {"one.rs": "use crate::two;\npub struct One; fn f() { two::two() }", "two.rs": "pub fn two() { super::one::One; }"},
            "import circle of 2 files",
        )

    def test_a_re_export_is_looked_through(self):
        self.expect(
            {
                "three.rs": "pub use crate::one::One;",
                "one.rs": "use crate::two::two;\npub struct One;",
                "two.rs": "use crate::three::One;\npub fn two(_: One) {}",
            },
            "import circle of 2 files",
            "shared/src/two.rs uses One of shared/src/one.rs",
        )

    def test_a_re_export_alone_is_no_use(self):
        self.expect({"one.rs": "pub use crate::two::Two;\npub struct One;", "two.rs": "use crate::one::One;\npub struct Two(One);"})

    def test_siblings_below_a_module(self):
        self.expect(
            {
                "three.rs": "mod four;\nmod five;\n",
                "three/four.rs": "use super::five::FIVE;\npub const FOUR: u8 = FIVE;",
                "three/five.rs": "use super::four::FOUR;\npub const FIVE: u8 = FOUR;",
            },
            "shared/src/three/five.rs uses FOUR of shared/src/three/four.rs",
        )

    def test_a_module_may_use_the_names_of_the_one_above(self):
        self.expect({"three.rs": "mod four;\nuse four::Four;\npub struct Three(Four);", "three/four.rs": "use super::Three;\npub struct Four;"})

    def test_tests_comments_and_texts_do_not_count(self):
        self.expect(
            {
                "one.rs": 'pub struct One; // crate::two::two\nconst TEXT: &str = "crate::two::two";\n'
                "#[cfg(test)]\nmod tests {\n    use crate::two::two;\n}\n",
                "two.rs": "use crate::one::One;\npub fn two(_: One) {}",
            }
        )


class Layers(unittest.TestCase):
    def test_orders_may_not_use_http(self):
        for use in ("use crate::http::error::ApiError;", "use crate::{db::Db, http::Json};", "fn f() -> axum::Router {}", "use axum::Router;"):
            with self.subTest(use=use):
                self.assertIn("api/src/orders/rules.rs: uses", faults({"api/src/orders/rules.rs": use}))

    def test_http_may_use_orders(self):
        self.assertEqual(faults({"api/src/http/orders/get.rs": "use axum::Router;\nuse crate::orders::Reader;"}), "")


class Length(unittest.TestCase):
    def test_400_lines_are_the_limit(self):
        self.assertEqual(faults({"api/tests/it/orders.rs": "\n" * 400}), "")
        self.assertIn("api/tests/it/orders.rs: 401 lines", faults({"api/tests/it/orders.rs": "\n" * 401}))


if __name__ == "__main__":
    unittest.main()

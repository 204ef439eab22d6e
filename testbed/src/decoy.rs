//! The decoy tenant, which every test's database holds beside the default one.

/// What fills it.
pub(crate) const SQL: &str = include_str!("decoy.sql");

/// How many orders it has.
pub const DECOY_ORDERS: u64 = 630;

/// Fails if a text shows an amount of the decoy tenant, which was asked for by nobody. Amounts of tests must not end in .13.
///
/// # Panics
///
/// If there is one.
#[track_caller]
pub fn assert_without_decoy(text: &str) {
    assert!(!text.contains(".13\""), "an order of another tenant is shown: {text}");
}

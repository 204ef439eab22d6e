//! Builds again when a migration is added: they are part of every program.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}

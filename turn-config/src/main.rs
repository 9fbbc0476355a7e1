//! The `turn-config` command.

fn main() {}

//! The `signaling-server` command.
fn main() {}

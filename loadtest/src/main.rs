//! Load tests for signaling servers and relays.
fn main() {}

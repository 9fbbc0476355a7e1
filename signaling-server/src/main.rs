//! The `signaling-server` command.

use std::process::ExitCode;

/// The system's own allocator keeps what a crowd has needed long after it has gone; this one gives it back.
#[cfg(all(unix, feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    signaling_server::cli::run(std::env::args_os())
}

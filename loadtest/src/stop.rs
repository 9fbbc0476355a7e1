//! An early end: the first Ctrl-C ends a run with a report of what there is, the second ends the process.

use std::{
    io,
    process::exit,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// How long a wait may be that nobody who asks for an end can cut short.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// What a shell says of a process that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// There is one per process, as there is one terminal.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether somebody has asked for an early end.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Relaxed)
}

/// The earlier of `until` and the next moment to look whether an end was asked for.
pub(crate) fn soon(until: Instant) -> Instant {
    until.min(Instant::now() + LONGEST_WAIT)
}

/// Sleeps; false when an early end was asked for before that.
pub(crate) fn sleep_until(until: Instant) -> bool {
    while !is_asked() && Instant::now() < until {
        thread::sleep(soon(until).saturating_duration_since(Instant::now()));
    }
    !is_asked()
}

/// Listens to Ctrl-C, and to what a supervisor sends, until the process ends.
///
/// # Errors
/// When the system gives no thread or does not let signals be heard.
pub(crate) fn listen() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if ASKED.swap(true, Relaxed) {
                    exit(INTERRUPTED);
                }
            }
        });
    })?;
    Ok(())
}

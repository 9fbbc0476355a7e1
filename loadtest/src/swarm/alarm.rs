//! A timer that wakes a poll.

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Interest, Poll, unix::SourceFd};
use rustix::{
    fd::OwnedFd,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use super::ALARM;

/// Wakes the poll at a moment, to the microsecond: its own timeout only knows milliseconds.
pub(super) struct Alarm {
    timer: OwnedFd,
    set_to: Option<Instant>,
}

impl Alarm {
    /// Wakes this poll.
    pub(super) fn new(poll: &Poll) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Self { timer, set_to: None })
    }

    /// Wakes at `moment`, unless that is what it is set to.
    pub(super) fn set(&mut self, moment: Instant, now: Instant) -> io::Result<()> {
        if self.set_to == Some(moment) {
            return Ok(());
        }
        let wait = moment.duration_since(now).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let flags = TimerfdTimerFlags::empty();
        timerfd_settime(&self.timer, flags, &Itimerspec { it_interval: zero, it_value })?;
        self.set_to = Some(moment);
        Ok(())
    }
}

//! CPU time and memory of a process, from `/proc`.

use std::{fs, io, path::PathBuf, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Linux counts `utime` and `stime` in hundredths of a second, whatever the kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);

/// A process that is watched.
#[derive(Debug, Clone)]
pub struct Process {
    directory: PathBuf,
}

/// CPU time a process has used since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// User and system time of all threads that ever lived, in steps of 10 ms.
    ticked: Duration,
    /// Run time of the threads that live now, to the nanosecond; `None` when the kernel does not tell.
    scheduled: Option<Duration>,
}

impl Cpu {
    /// What was used since `earlier`. Nanosecond figures are preferred; they lack threads that have ended
    /// meanwhile, so that the coarse figure wins where it is larger by more than its own step.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let ticked = self.ticked.saturating_sub(earlier.ticked);
        match (self.scheduled, earlier.scheduled) {
            (Some(now), Some(then)) => {
                let fine = now.saturating_sub(then);
                if ticked > fine + 2 * TICK { ticked } else { fine }
            }
            _ => ticked,
        }
    }
}

impl Process {
    /// The process `pid`.
    ///
    /// # Errors
    /// When there is none, or its figures cannot be read.
    pub fn watch(pid: u32) -> io::Result<Self> {
        let process = Self { directory: PathBuf::from(format!("/proc/{pid}")) };
        process.cpu()?;
        Ok(process)
    }

    /// This process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn own() -> io::Result<Self> {
        Self::watch(std::process::id())
    }

    /// The CPU time used so far.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn cpu(&self) -> io::Result<Cpu> {
        let stat = fs::read_to_string(self.directory.join("stat"))?;
        let ticks = ticks(&stat).ok_or_else(|| io::Error::other("cannot read utime and stime in /proc"))?;
        Ok(Cpu { ticked: TICK * u32::try_from(ticks).unwrap_or(u32::MAX), scheduled: self.scheduled() })
    }

    fn scheduled(&self) -> Option<Duration> {
        let mut nanoseconds = 0_u64;
        for thread in fs::read_dir(self.directory.join("task")).ok()? {
            // A thread may end between the listing and the reading.
            let Ok(line) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
            nanoseconds += line.split(' ').next()?.parse::<u64>().ok()?;
        }
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// The resident memory in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.directory.join("status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib = kib.and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("cannot read VmRSS in /proc"))
    }
}

/// `utime` plus `stime` of a line of `/proc/PID/stat`; the name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Raises the soft limit of open files to the hard one and returns it.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn a_busy_thread_shows_as_the_time_it_ran() {
        let own = Process::own().unwrap();
        let before = own.cpu().unwrap();
        let start = Instant::now();
        while own.cpu().unwrap().since(&before) < Duration::from_millis(30) {
            assert!(start.elapsed() < Duration::from_secs(20), "30 ms of work never showed");
        }
        assert!(own.resident().unwrap() > 100_000);
    }

    #[test]
    fn a_thread_that_ended_is_not_forgotten() {
        let at = |ticked, fine| Cpu {
            ticked: Duration::from_millis(ticked),
            scheduled: Some(Duration::from_millis(fine)),
        };
        assert_eq!(at(150, 148).since(&at(100, 100)), Duration::from_millis(48));
        assert_eq!(at(500, 148).since(&at(100, 100)), Duration::from_millis(400));
    }
}

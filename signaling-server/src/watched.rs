//! Values read from files and read again when the files change: keys, tokens, certificates.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::time::MissedTickBehavior;

/// The largest file read. Key sets and certificate chains are some kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a file, in one line that names it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What was expected and what was found; never what a secret file holds.
    pub problem: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are as before.
    None,
    /// They are new, and in force.
    Renewed,
    /// They are new and no good; what was in force still is.
    Refused(FileError),
}

/// What was read from one file.
pub(crate) struct Content<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
}

impl Content<'_> {
    pub(crate) fn text(&self) -> Result<&str, FileError> {
        std::str::from_utf8(self.bytes).map_err(|_| self.error("expected text, found other bytes"))
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> FileError {
        FileError::new(self.path, problem)
    }
}

type Build<T> = dyn Fn(&[Content<'_>]) -> Result<T, FileError> + Send + Sync;

/// A value built from files. The current one can be had at any time without waiting.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    build: Box<Build<T>>,
    current: ArcSwap<T>,
    /// What was read last, good or bad: a bad file is reported once, not at every look.
    seen: Mutex<Vec<io::Result<Vec<u8>>>>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files and builds the value, now.
    pub(crate) fn load(
        paths: Vec<PathBuf>,
        build: impl Fn(&[Content<'_>]) -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, FileError> {
        let seen = read_all(&paths);
        let first = built(&paths, &seen, &build)?;
        Ok(Arc::new(Self {
            paths,
            build: Box::new(build),
            current: ArcSwap::from_pointee(first),
            seen: Mutex::new(seen),
        }))
    }

    /// The newest good value.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files again. They are compared by content: what replaces a file, and when it says it was written, has
    /// proved unreliable across copies, mounts and links.
    pub(crate) fn look(&self) -> Change {
        let now = read_all(&self.paths);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.iter().zip(seen.iter()).all(|(now, seen)| is_same(now, seen)) {
            return Change::None;
        }
        let value = built(&self.paths, &now, &self.build);
        *seen = now;
        match value {
            Ok(value) => {
                self.current.store(Arc::new(value));
                Change::Renewed
            }
            Err(error) => Change::Refused(error),
        }
    }

    /// Looks at the files each `interval`, for ever, and tells `report` about each change.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration, report: impl Fn(&Change)) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_now(&report).await;
        }
    }

    /// Looks at the files now, and tells `report` about a change.
    pub(crate) async fn look_now(self: &Arc<Self>, report: &impl Fn(&Change)) {
        let watched = Arc::clone(self);
        // Reading may block on a slow disk or a network mount; no connection should wait for that.
        let looked = tokio::task::spawn_blocking(move || watched.look()).await;
        match looked {
            Ok(Change::None) | Err(_) => {}
            Ok(change) => {
                self.log(&change);
                report(&change);
            }
        }
    }

    fn log(&self, change: &Change) {
        match change {
            Change::None => {}
            Change::Renewed => tracing::info!(files = %self, "files changed and are in force"),
            Change::Refused(error) => {
                tracing::warn!(%error, "files changed and are refused, the old ones stay in force");
            }
        }
    }
}

impl<T> fmt::Display for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        f.write_str(&paths.join(", "))
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn is_same(now: &io::Result<Vec<u8>>, seen: &io::Result<Vec<u8>>) -> bool {
    match (now, seen) {
        (Ok(now), Ok(seen)) => now == seen,
        (Err(now), Err(seen)) => now.kind() == seen.kind(),
        _ => false,
    }
}

fn built<T>(
    paths: &[PathBuf],
    read: &[io::Result<Vec<u8>>],
    build: impl Fn(&[Content<'_>]) -> Result<T, FileError>,
) -> Result<T, FileError> {
    let contents: Result<Vec<_>, _> = paths
        .iter()
        .zip(read)
        .map(|(path, read)| match read {
            Ok(bytes) => Ok(Content { path, bytes }),
            Err(error) => Err(FileError::new(path, plainly(error))),
        })
        .collect();
    build(&contents?)
}

/// Reads a whole file of at most 1 MiB.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_bounded(path).map_err(|error| FileError::new(path, plainly(&error)))
}

fn read_all(paths: &[PathBuf]) -> Vec<io::Result<Vec<u8>>> {
    paths.iter().map(|path| read_bounded(path)).collect()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file is larger than the limit of 1 MiB"));
    }
    Ok(bytes)
}

fn plainly(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "expected a file, found a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Content<'_>]) -> Result<u32, FileError> {
        let content = &contents[0];
        content.text()?.trim().parse().map_err(|_| content.error("expected a number"))
    }

    #[test]
    fn a_changed_file_is_in_force_at_the_next_look() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "1").unwrap();
        let watched = Watched::load(vec![file.path().to_owned()], number).unwrap();
        assert_eq!((*watched.current(), watched.look()), (1, Change::None));
        std::fs::write(&file, "2").unwrap();
        assert_eq!((watched.look(), *watched.current()), (Change::Renewed, 2));
    }

    #[test]
    fn a_bad_file_leaves_the_old_value_in_force_and_is_reported_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "1").unwrap();
        let watched = Watched::load(vec![file.path().to_owned()], number).unwrap();
        std::fs::write(&file, "two").unwrap();
        assert!(matches!(watched.look(), Change::Refused(error) if error.problem == "expected a number"));
        assert_eq!((watched.look(), *watched.current()), (Change::None, 1));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(watched.look(), Change::Refused(error) if error.problem == "no such file"));
        assert_eq!((watched.look(), *watched.current()), (Change::None, 1));
    }
}

//! Putting a [`Config`] together: a file, over it the environment, over that the flags.
//!
//! Whatever is refused is refused in one line that says where the value came from, which key it is for, and what was
//! expected.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};

use super::check::{Fault, check};
use super::{Config, environment};
use crate::watched::{self, FileError};

/// Where settings come from. Flags win over the environment, and that over the file.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those named `SIGNALING_…` and `PORT` are looked at. An empty one counts as unset.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

/// A flag of the command line that sets a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag as the user writes it, such as `--listen`.
    pub name: &'static str,
    /// The key it sets, such as `server.listen`.
    pub key: &'static str,
    /// The value given.
    pub value: String,
}

/// A configuration, and where each of its settings came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

/// Why a configuration is refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no TOML.
    #[error("{}: line {line}, column {column}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What was expected.
        problem: String,
    },
    /// A name is not known.
    #[error("{origin}: {name}: no such setting; the nearest known one is {nearest}")]
    Unknown {
        /// Where it came from.
        origin: Origin,
        /// The name.
        name: String,
        /// The known name that looks most like it.
        nearest: String,
    },
    /// An environment variable with our prefix is not known.
    #[error("environment variable {name}: no such setting; the nearest known one is {nearest}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known variable that looks most like it.
        nearest: String,
    },
    /// A value is not what its key expects.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// Where it came from.
        origin: Origin,
        /// The key, such as `limits.max_message`.
        key: String,
        /// What was expected, and what was found.
        problem: String,
    },
}

impl Config {
    /// Puts a configuration together and checks it.
    ///
    /// # Errors
    ///
    /// At the first file that can not be read, name that is not known, and value that is not what its key expects.
    pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
        let mut draft = Draft::new();
        if let Some(path) = &layers.file {
            draft.read_file(path)?;
        }
        environment::apply(&mut draft, &layers.environment)?;
        for flag in &layers.flags {
            draft.set_text(flag.key, &flag.value, Origin::Flag(flag.name))?;
        }
        let loaded = draft.finish()?;
        match check(&loaded.config) {
            Ok(()) => Ok(loaded),
            Err(Fault { key, measure, problem }) => {
                let is_set = *loaded.origin(key) != Origin::Default;
                let origin = loaded.origin(if is_set { key } else { measure.unwrap_or(key) }).clone();
                Err(ConfigError::Value { origin, key: key.to_owned(), problem })
            }
        }
    }
}

impl Loaded {
    /// Where `key` (such as `limits.max_message`) got its value.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// The error that says `key` is at fault, and where its value came from.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Value { origin: self.origin(key).clone(), key: key.to_owned(), problem: problem.into() }
    }
}

impl fmt::Display for Loaded {
    /// The whole configuration as TOML, secrets hidden, with a comment on each value that is not a default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, keys) in &sections(&self.config) {
            writeln!(f, "[{section}]")?;
            for (key, value) in keys {
                match self.origin(&format!("{section}.{key}")) {
                    Origin::Default => writeln!(f, "{key} = {value}")?,
                    origin => writeln!(f, "{key} = {value}  # {origin}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A configuration in the making: what is set so far, and by whom.
pub(super) struct Draft {
    /// Every section and key there is, with its default.
    known: BTreeMap<String, Table>,
    set: Table,
    origins: BTreeMap<String, Origin>,
}

impl Draft {
    fn new() -> Self {
        Self { known: sections(&Config::default()), set: Table::new(), origins: BTreeMap::new() }
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let bytes = watched::read(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| FileError::new(path, "expected UTF-8 text, found other bytes"))?;
        let table = text.parse::<Table>().map_err(|error| syntax_error(path, &text, &error))?;
        let origin = Origin::File(path.to_owned());
        for (section, value) in table {
            let Value::Table(keys) = value else {
                return Err(self.unknown(&section, &origin));
            };
            if !self.known.contains_key(&section) {
                return Err(self.unknown(&section, &origin));
            }
            for (key, value) in keys {
                self.set(&format!("{section}.{key}"), value, origin.clone())?;
            }
        }
        Ok(())
    }

    /// The full names of all keys: `server.listen` and so on.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.known.iter().flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}")))
    }

    /// What `name` is set to, so far.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (section, key) = name.split_once('.')?;
        self.set.get(section).and_then(|keys| keys.get(key)).or_else(|| self.default(name))?.as_str()
    }

    fn default(&self, name: &str) -> Option<&Value> {
        let (section, key) = name.split_once('.')?;
        self.known.get(section)?.get(key)
    }

    /// Sets a key from text, which is read as its default is written; lists are separated by commas.
    pub(super) fn set_text(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let value = match self.default(name) {
            Some(Value::Boolean(_)) => boolean(text),
            Some(Value::Integer(_)) => text.parse().map_or(Value::String(text.to_owned()), Value::Integer),
            Some(Value::Array(_)) => Value::Array(listed(text)),
            _ => Value::String(text.to_owned()),
        };
        self.set(name, value, origin)
    }

    fn set(&mut self, name: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let Some((default, (section, key))) = self.default(name).zip(name.split_once('.')) else {
            return Err(self.unknown(name, &origin));
        };
        if let Some(problem) = mismatch(default, &value) {
            return Err(ConfigError::Value { origin, key: name.to_owned(), problem });
        }
        let keys = self.set.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(keys) = keys {
            keys.insert(key.to_owned(), value);
        }
        self.origins.insert(name.to_owned(), origin);
        Ok(())
    }

    fn unknown(&self, name: &str, origin: &Origin) -> ConfigError {
        let sections =
            self.known.keys().filter(|_| !name.contains('.')).map(|section| format!("[{section}]"));
        let nearest = nearest(name, self.names().chain(sections));
        ConfigError::Unknown { origin: origin.clone(), name: name.to_owned(), nearest }
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        let config = serde_path_to_error::deserialize(Value::Table(self.set)).map_err(|error| {
            let key = key_of(error.path());
            let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Default);
            ConfigError::Value { origin, key, problem: plainly(error.inner().message()) }
        })?;
        Ok(Loaded { config, origins: self.origins })
    }
}

/// The known name that looks most like `name`: by its whole, or by its key alone when the section is missing.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let likeness = |known: &str| {
        let key = known.split_once('.').map_or(known, |(_, key)| key);
        let alone = if name.contains('.') { 0.0 } else { strsim::jaro_winkler(name, key) };
        strsim::jaro_winkler(name, known).max(alone)
    };
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}

fn sections(config: &Config) -> BTreeMap<String, Table> {
    let table = Table::try_from(config).expect("a configuration is tables of plain values");
    BTreeMap::deserialize(Value::Table(table)).expect("a configuration is sections of keys")
}

fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
        problem: plainly(error.message()),
    }
}

fn boolean(text: &str) -> Value {
    match text {
        "true" | "on" => Value::Boolean(true),
        "false" | "off" => Value::Boolean(false),
        _ => Value::String(text.to_owned()),
    }
}

fn listed(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.to_owned())).collect()
}

/// What is wrong with the kind of `value`, if anything; kinds of text are looked at later.
fn mismatch(default: &Value, value: &Value) -> Option<String> {
    let expected = match (default, value) {
        (Value::Integer(_), Value::Integer(number)) if *number >= 0 => return None,
        (Value::Integer(_), _) => "a whole number of 0 or more",
        (Value::Boolean(_), Value::Boolean(_)) => return None,
        (Value::Boolean(_), _) => "true or false",
        (Value::Array(_), Value::Array(items)) if items.iter().all(Value::is_str) => return None,
        (Value::Array(_), _) => "a list of strings such as [\"a\", \"b\"]",
        (_, Value::String(_) | Value::Integer(_)) => return None,
        _ => "a string",
    };
    // A list may hold tokens: only what kind of value it is may be said.
    Some(match default {
        Value::Array(_) => format!("expected {expected}, found something else"),
        _ => format!("expected {expected}, found {value}"),
    })
}

/// The key at the start of a path that may go on into the key's value.
fn key_of(path: &serde_path_to_error::Path) -> String {
    let segments = path.iter().filter_map(|segment| match segment {
        serde_path_to_error::Segment::Map { key } => Some(key.as_str()),
        _ => None,
    });
    segments.take(2).collect::<Vec<_>>().join(".")
}

/// One line, without the names of Rust's types.
fn plainly(message: &str) -> String {
    let line = message.trim().replace('\n', ", ");
    line.replace("expected u32", "expected a whole number up to 4294967295")
        .replace("a string or a whole number", "a string")
}

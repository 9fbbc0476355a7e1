//! The flags that set keys, and the configuration they make with a file and the environment.

use std::path::PathBuf;

use clap::Args;

use crate::access::{Access, AccessError};
use crate::config::{Config, ConfigError, Flag, Layers, Loaded};
use crate::tls::{Tls, TlsError};

/// Flags that every command with a configuration takes. Their values are read where those of the file are, so that a
/// bad one is refused in the same words.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// A TOML file with settings; config.example.toml lists every key [env: SIGNALING_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for clients [default: [::]:4444]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address and port for /metrics, /rooms and /documents, or "off" [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<String>,
    /// "off" lifts every rate and count, never what bounds memory [default: on]
    #[arg(long, value_name = "on|off")]
    limits: Option<String>,
    /// Relay documents and keep them in this directory; relay.mode is "disk" then
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// How log lines look: "human" or "json" [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Settings {
    /// The configuration in force, checked, its keys and certificates included.
    pub(super) fn load(&self) -> Result<Loaded, ConfigError> {
        let loaded = Config::load(&self.layers())?;
        check_files(&loaded)?;
        Ok(loaded)
    }

    fn layers(&self) -> Layers {
        Layers { file: file(self.config.as_ref()), environment: environment(), flags: self.flags() }
    }

    fn flags(&self) -> Vec<Flag> {
        let given = [
            ("--listen", "server.listen", &self.listen),
            ("--metrics-listen", "metrics.listen", &self.metrics_listen),
            ("--limits", "limits.enabled", &self.limits),
            ("--log-format", "log.format", &self.log_format),
        ];
        let flags = given.into_iter().filter_map(|(name, key, value)| Some((name, key, value.clone()?)));
        let flags = flags.map(|(name, key, value)| Flag { name, key, value });
        flags.chain(self.data_dir.iter().flat_map(|dir| on_disk(dir))).collect()
    }
}

/// What `--data-dir DIR` sets.
pub(super) fn on_disk(dir: &str) -> [Flag; 2] {
    let flag = |key, value: &str| Flag { name: "--data-dir", key, value: value.to_owned() };
    [flag("relay.mode", "disk"), flag("relay.data_dir", dir)]
}

/// The configuration file: the one the flag names, or else the one that `SIGNALING_CONFIG` names.
pub(super) fn file(flag: Option<&PathBuf>) -> Option<PathBuf> {
    let variable = || std::env::var_os("SIGNALING_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    flag.cloned().or_else(variable)
}

/// The environment; a value that is no text is refused later, where its key says what it expects.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value))).collect()
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Reads keys, tokens and certificates, to refuse bad ones before anything is bound.
fn check_files(loaded: &Loaded) -> Result<(), ConfigError> {
    let config = &loaded.config;
    if let Err(error) = Access::from_config(&config.access) {
        return Err(match &error {
            AccessError::File { key, error } => loaded.refuse(key, error.to_string()),
            AccessError::Setting { key, problem } => loaded.refuse(key, *problem),
        });
    }
    match Tls::from_config(&config.tls) {
        Ok(_) => Ok(()),
        Err(TlsError::File { key, error }) => Err(loaded.refuse(key, error.to_string())),
        Err(TlsError::Half { given, missing }) => {
            Err(loaded.refuse(given, format!("expected {missing} to be set too")))
        }
    }
}

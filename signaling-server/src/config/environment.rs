//! Settings from environment variables: `SIGNALING_<SECTION>_<KEY>` for every key, and the reference server's `PORT`.

use std::net::SocketAddr;

use super::load::{ConfigError, Draft, Origin, nearest};

const PREFIX: &str = "SIGNALING_";
/// Names the configuration file itself; the command line reads it.
const FILE: &str = "SIGNALING_CONFIG";

/// Sets what the environment says. An empty variable counts as unset: that is how compose files leave one out.
pub(super) fn apply(draft: &mut Draft, variables: &[(String, String)]) -> Result<(), ConfigError> {
    let set = || variables.iter().filter(|(_, value)| !value.is_empty());
    // First, so that the variable for the whole address wins over the one for its port.
    if let Some((_, port)) = set().find(|(name, _)| name == "PORT") {
        apply_port(draft, port)?;
    }
    let known: Vec<(String, String)> = draft.names().map(|name| (variable(&name), name)).collect();
    for (name, value) in set().filter(|(name, _)| name.starts_with(PREFIX) && name != FILE) {
        let origin = Origin::Variable(name.clone());
        match known.iter().find(|(variable, _)| variable == name) {
            Some((_, key)) => draft.set_text(key, value, origin)?,
            None if is_service_link(name, value) => {}
            None => {
                let nearest = nearest(name, known.iter().map(|(variable, _)| variable.clone()));
                return Err(ConfigError::UnknownVariable { name: name.clone(), nearest });
            }
        }
    }
    Ok(())
}

/// The variable for a key: `SIGNALING_SERVER_LISTEN` for `server.listen`.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

fn apply_port(draft: &mut Draft, port: &str) -> Result<(), ConfigError> {
    const KEY: &str = "server.listen";
    let origin = Origin::Variable("PORT".to_owned());
    let Ok(number) = port.parse() else {
        let problem = format!("expected a port number from 0 to 65535, found {port:?}");
        return Err(ConfigError::Value { origin, key: KEY.to_owned(), problem });
    };
    // An address that can not be read is reported as the file's own mistake, not as this variable's.
    let Some(mut listen) = draft.text(KEY).and_then(|text| text.parse::<SocketAddr>().ok()) else {
        return Ok(());
    };
    listen.set_port(number);
    draft.set_text(KEY, &listen.to_string(), origin)
}

/// Whether a variable is one that Kubernetes or Docker sets by itself when a service is called `signaling` or
/// `signaling-something`: it is about that service, not for us.
fn is_service_link(name: &str, value: &str) -> bool {
    let rest = name.trim_start_matches(PREFIX);
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = |rest: &str| {
        let mut words = rest.split('_');
        words.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"))
    };
    let has = |word: &str| rest == word || rest.ends_with(&format!("_{word}"));
    let after =
        |word: &str| rest.split_once(word).filter(|(before, _)| before.is_empty() || before.ends_with('_'));
    has("SERVICE_HOST")
        || has("SERVICE_PORT")
        || after("SERVICE_PORT_").is_some()
        || (has("PORT") && is_url)
        || after("PORT_").is_some_and(|(_, rest)| of_port(rest))
        || (has("NAME") && value.starts_with('/'))
        || after("ENV_").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_and_docker_set_by_themselves_is_passed_over() {
        for (name, value) in [
            ("SIGNALING_SERVICE_HOST", "10.0.0.1"),
            ("SIGNALING_SERVICE_PORT", "4444"),
            ("SIGNALING_SERVICE_PORT_WS", "4444"),
            ("SIGNALING_PORT", "tcp://10.0.0.1:4444"),
            ("SIGNALING_PORT_4444_TCP", "tcp://10.0.0.1:4444"),
            ("SIGNALING_PORT_4444_TCP_ADDR", "10.0.0.1"),
            ("SIGNALING_PORT_4444_TCP_PROTO", "tcp"),
            ("SIGNALING_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("SIGNALING_SERVER_PORT", "tcp://10.0.0.1:4444"),
            ("SIGNALING_SERVER_PORT_4444_TCP_PORT", "4444"),
            ("SIGNALING_NAME", "/web/signaling"),
            ("SIGNALING_ENV_PATH", "/bin"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
    }

    #[test]
    fn a_mistyped_variable_is_not_passed_over() {
        for (name, value) in [
            ("SIGNALING_PORT", "4444"),
            ("SIGNALING_SERVER_LISTN", "0.0.0.0:1"),
            ("SIGNALING_PORT_FOUR_TCP", "x"),
            ("SIGNALING_NAME", "main"),
            ("SIGNALING_LOG_LEVL", "info"),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}

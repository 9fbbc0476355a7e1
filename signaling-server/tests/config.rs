//! A configuration is a file, under the environment, under the flags; what is wrong with it is one line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/command.rs"]
mod command;

use command::{Files, Said, run, run_with};
use signaling_server::config::{Config, Layers, Origin};
use toml::{Table, Value};

const EXAMPLE: &str = include_str!("../config.example.toml");

/// What `check-config` says to a file with this content.
fn check(content: &str) -> (String, Said) {
    let files = Files::new();
    let file = files.write_text("signaling.toml", content);
    let said = run(&["check-config", "--config", &file]);
    (file, said)
}

/// Each section and key with its value.
fn keys(table: &Table) -> Vec<(String, String, Value)> {
    let sections = table.iter().map(|(section, keys)| (section, keys.as_table().unwrap()));
    let flat = sections.flat_map(|(section, keys)| {
        keys.iter().map(|(key, value)| (section.clone(), key.clone(), value.clone()))
    });
    flat.collect()
}

fn default_keys() -> Vec<(String, String, Value)> {
    keys(&Table::try_from(Config::default()).unwrap())
}

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let example: Table = EXAMPLE.parse().unwrap();
    let names = |keys: &[(String, String, Value)]| -> Vec<String> {
        keys.iter().map(|(section, key, _)| format!("{section}.{key}")).collect()
    };
    assert_eq!(names(&keys(&example)), names(&default_keys()));
    assert_eq!(example.try_into::<Config>().unwrap(), Config::default());
}

#[test]
fn the_example_file_says_why_for_every_section_and_key() {
    let mut explained = false;
    for line in EXAMPLE.lines() {
        match line {
            "" => explained = false,
            _ if line.starts_with('#') => explained = true,
            // A heading needs no comment, and a comment may cover several keys that follow each other.
            _ if line.starts_with('[') => {}
            _ => assert!(explained, "no comment above {line}"),
        }
    }
}

#[test]
fn nothing_has_to_be_set() {
    let said = run(&["check-config"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("ok\n"), "{}", said.out);
    let printed: Table = said.out.strip_prefix("ok\n").unwrap().parse().unwrap();
    assert_eq!(printed.try_into::<Config>().unwrap(), Config::default());
}

#[test]
fn a_bad_value_is_one_line_with_the_file_the_key_and_what_was_expected() {
    for (content, refusal) in [
        (
            "[limits]\nmax_message = \"2MiB\"",
            "limits.outbound_queue: expected at least limits.max_message, which is 2MiB, found 1MiB",
        ),
        (
            "[signaling]\nping_interval = \"2m\"",
            "signaling.dead_after: expected longer than signaling.ping_interval, found 1m",
        ),
        (
            "[limits]\nmax_message = \"lots\"",
            "limits.max_message: expected a size such as \"256KiB\", found \"lots\"",
        ),
        ("[limits]\nmax_message = 1.5", "limits.max_message: expected a string, found 1.5"),
        ("[limits]\nmax_message = 100", "limits.max_message: expected 4KiB to 64MiB, found 100"),
        (
            "[limits]\noutbound_queue = \"8KiB\"",
            "limits.outbound_queue: expected at least limits.max_message, which is 256KiB, found 8KiB",
        ),
        ("[limits]\njson_depth = 0", "limits.json_depth: expected at least 1, found 0"),
        ("[limits]\njson_depth = -1", "limits.json_depth: expected a whole number of 0 or more, found -1"),
        (
            "[limits]\njson_depth = \"deep\"",
            "limits.json_depth: expected a whole number of 0 or more, found \"deep\"",
        ),
        (
            "[limits]\nupgrades_burst = 5000000000",
            "limits.upgrades_burst: invalid value: integer `5000000000`, expected a whole number up to 4294967295",
        ),
        ("[limits]\nenabled = \"maybe\"", "limits.enabled: expected true or false, found \"maybe\""),
        (
            "[limits]\nconnections = \"many\"",
            "limits.connections: expected a whole number or \"auto\", found \"many\"",
        ),
        (
            "[limits]\nwrite_deadline = \"soon\"",
            "limits.write_deadline: expected a duration such as \"30s\", found \"soon\"",
        ),
        (
            "[limits]\nwrite_deadline = \"2 years\"",
            "limits.write_deadline: expected at most 365 days, found \"2 years\"",
        ),
        (
            "[ice]\nturn = [\"turn:turn.test\"]",
            "ice.secret_files: ice.turn expects the secret shared with its servers, here or in ice.secrets",
        ),
        (
            "[ice]\nturn = [\"turn://turn.test\"]\nsecrets = [\"a-secret-of-sixteen\"]",
            "ice.turn: \"turn://turn.test\" names no host; it is a name, an IPv4 address or an IPv6 address in brackets, right after the colon",
        ),
        (
            "[ice]\nsecrets = [\"a-secret-of-sixteen\"]",
            "ice.secrets: is set and not used: expected ice.turn to name the servers",
        ),
        (
            "[ice]\nturn = [\"turn:a\", \"turn:b\", \"turn:c\"]\nsecrets = [\"a-secret-of-sixteen\", \"b-secret-of-sixteen\"]",
            "ice.secrets: expected one for all or one for each of the 3 entries of ice.turn, found 2",
        ),
        ("[ice]\nturn = [\"turn:a\"]\nsecrets = [\"\"]", "ice.secrets: secret is empty"),
        ("[ice]\nttl = \"8 days\"", "ice.ttl: validity is 691200 s, it takes 1 s to 604800 s"),
        (
            "[relay]\nmode = \"tape\"",
            "relay.mode: unknown variant `tape`, expected one of `off`, `memory`, `disk`",
        ),
        ("[relay]\nmode = \"disk\"", "relay.data_dir: relay.mode = \"disk\" expects a directory here"),
        (
            "[relay]\nmode = \"memory\"\ndata_dir = \"/srv/rooms\"",
            "relay.data_dir: is set and not used: expected relay.mode = \"disk\"",
        ),
        ("[relay]\nbytes_per_room = \"1GiB\"", "relay.bytes_per_room: expected 256KiB to 512MiB, found 1GiB"),
        (
            "[relay]\nbytes = \"1MiB\"",
            "relay.bytes: expected 0 or at least relay.bytes_per_room, which is 64MiB, found 1MiB",
        ),
        (
            "[relay]\nbytes_per_room = \"512KiB\"",
            "relay.compact_after: expected less than relay.bytes_per_room, which is 512KiB, found 1MiB",
        ),
        ("[relay]\ncompact_after = 0", "relay.compact_after: expected at least 1, found 0"),
        ("[relay]\nwrite_queue = 0", "relay.write_queue: expected at least 256KiB, found 0"),
        ("[relay]\nsync_interval = \"2s\"", "relay.sync_interval: expected at most 1s, found 2s"),
        ("[limits]\nwrite_deadline = 0", "limits.write_deadline: expected a duration longer than 0"),
        (
            "[server]\nlisten = \":4444\"",
            "server.listen: expected an IP address and a port such as \"0.0.0.0:4444\" or \"[::]:4444\", found \":4444\"",
        ),
        (
            "[metrics]\nlisten = \"on\"",
            "metrics.listen: expected an IP address and a port such as \"127.0.0.1:9464\", or \"off\", found \"on\"",
        ),
        (
            "[signaling]\ndelivery = \"both\"",
            "signaling.delivery: unknown variant `both`, expected `directed` or `broadcast`",
        ),
        (
            "[signaling]\ndead_after = \"10s\"",
            "signaling.dead_after: expected longer than signaling.ping_interval, found 10s",
        ),
        (
            "[access]\nmode = \"closed\"",
            "access.mode: unknown variant `closed`, expected one of `open`, `tokens`, `signed`",
        ),
        (
            "[access]\nmode = \"tokens\"",
            "access.mode: \"tokens\" expects at least one token in access.tokens or access.tokens_file",
        ),
        (
            "[access]\nmode = \"signed\"",
            "access.mode: \"signed\" expects a file in access.keys_file or access.jwks_file",
        ),
        (
            "[access]\ntokens = [\"s3cret\"]",
            "access.tokens: is set and not used: expected access.mode = \"tokens\"",
        ),
        (
            "[access]\ntokens = \"s3cret\"",
            "access.tokens: expected a list of strings such as [\"a\", \"b\"], found something else",
        ),
        (
            "[access]\norigins = [\"https://a.example/x\"]",
            "access.origins: expected origins such as \"https://app.example.com\", without a path, found \"https://a.example/x\"",
        ),
        ("[access]\ncookie = \"a b\"", "access.cookie: expected the name of a cookie, found \"a b\""),
        (
            "[access]\nalgorithms = [\"none\"]",
            "access.algorithms: unknown variant `none`, expected one of `HS256`, `EdDSA`, `ES256`, `RS256`",
        ),
        (
            "[access]\nmode = \"signed\"\nkeys_file = \"/nowhere/key\"",
            "access.keys_file: /nowhere/key: no such file",
        ),
        (
            "[proxy]\ntrusted = [\"10.0.0.0/99\"]",
            "proxy.trusted: expected an address or a network such as \"10.0.0.0/8\" or \"fd00::/8\", found \"10.0.0.0/99\"",
        ),
        ("[proxy]\nprotocol = \"v2\"", "proxy.protocol: \"v2\" expects proxy.trusted to name the proxies"),
        ("[tls]\ncert = \"/nowhere/cert.pem\"", "tls.cert: expected tls.key to be set too"),
        (
            "[tls]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"",
            "tls.cert: /nowhere/cert.pem: no such file",
        ),
        ("[tls]\nreload_interval = 0", "tls.reload_interval: expected a duration longer than 0"),
        (
            "[log]\nlevel = \"loud\"",
            "log.level: expected error, warn, info, debug, trace or a filter such as \"info,signaling_server::access=debug\", found \"loud\"",
        ),
        ("[log]\nformat = \"xml\"", "log.format: unknown variant `xml`, expected `human` or `json`"),
        (
            "[limits]\nmax_mesage = 1",
            "limits.max_mesage: no such setting; the nearest known one is limits.max_message",
        ),
        ("[limit]\nmax_message = 1", "limit: no such setting; the nearest known one is [limits]"),
        ("listen = \"0.0.0.0:1\"", "listen: no such setting; the nearest known one is server.listen"),
        ("[server]\nlisten = ", "line 2, column 10: string values must be quoted, expected literal string"),
        ("[server]\nlisten = \"0.0.0.0:1\"\nlisten = \"0.0.0.0:2\"", "line 3, column 1: duplicate key"),
    ] {
        let (file, said) = check(content);
        assert_eq!(said.refusal(), format!("{file}: {refusal}"), "{content}");
    }
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let files = Files::new();
    let missing = files.path("missing.toml").to_str().unwrap().to_owned();
    assert_eq!(run(&["check-config", "--config", &missing]).refusal(), format!("{missing}: no such file"));
    let folder = files.path("").to_str().unwrap().to_owned();
    let refusal = format!("{folder}: expected a file, found a directory");
    assert_eq!(run(&["check-config", "--config", &folder]).refusal(), refusal);
    let binary = files.write_text("binary.toml", [0xFF, 0xFE]);
    let refusal = format!("{binary}: expected UTF-8 text, found other bytes");
    assert_eq!(run(&["check-config", "--config", &binary]).refusal(), refusal);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let files = Files::new();
    let file = files.write_text(
        "signaling.toml",
        "[server]\nlisten = \"127.0.0.1:1\"\n[drain]\nwindow = \"1s\"\n[log]\nlevel = \"warn\"",
    );
    let environment = [("SIGNALING_SERVER_LISTEN", "127.0.0.1:2"), ("SIGNALING_DRAIN_WINDOW", "2s")];
    let said = run_with(&["check-config", "--config", &file, "--listen", "127.0.0.1:3"], &environment);
    for line in [
        "listen = \"127.0.0.1:3\"  # flag --listen",
        "window = \"2s\"  # environment variable SIGNALING_DRAIN_WINDOW",
        &format!("level = \"warn\"  # {file}"),
        "ready_wait = \"5s\"",
    ] {
        assert!(said.out.lines().any(|printed| printed == line), "no {line} in\n{}", said.out);
    }
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let files = Files::new();
    let file = files.write_text("signaling.toml", "[log]\nlevel = \"warn\"");
    let said = run_with(&["check-config"], &[("SIGNALING_CONFIG", &file)]);
    assert!(said.out.contains(&format!("level = \"warn\"  # {file}")), "{}", said.out);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for (section, key, value) in default_keys() {
        let text = match &value {
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(", ")
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let variable = format!("SIGNALING_{section}_{key}").to_ascii_uppercase();
        let layers = Layers { environment: vec![(variable.clone(), text.clone())], ..Layers::default() };
        let loaded = Config::load(&layers).unwrap();
        assert_eq!(loaded.config, Config::default(), "{variable}");
        let origin = if text.is_empty() { Origin::Default } else { Origin::Variable(variable) };
        assert_eq!(*loaded.origin(&format!("{section}.{key}")), origin);
    }
}

#[test]
fn lists_are_separated_by_commas_in_the_environment() {
    let variables =
        [("SIGNALING_PROXY_TRUSTED", "10.0.0.0/8, 127.0.0.1"), ("SIGNALING_LIMITS_ENABLED", "off")];
    let said = run_with(&["check-config"], &variables);
    assert!(said.out.contains("trusted = [\"10.0.0.0/8\", \"127.0.0.1/32\"]"), "{}", said.out);
    assert!(said.out.contains("enabled = false"), "{}", said.out);
}

#[test]
fn a_bad_variable_or_flag_is_named_with_its_key() {
    let refused = |name, value| run_with(&["check-config"], &[(name, value)]).refusal().to_owned();
    assert_eq!(
        refused("SIGNALING_LIMITS_JSON_DEPTH", "deep"),
        "environment variable SIGNALING_LIMITS_JSON_DEPTH: limits.json_depth: expected a whole number of 0 or more, found \"deep\""
    );
    assert_eq!(
        refused("SIGNALING_LIMITS_JSON_DEPHT", "3"),
        "environment variable SIGNALING_LIMITS_JSON_DEPHT: no such setting; the nearest known one is SIGNALING_LIMITS_JSON_DEPTH"
    );
    assert_eq!(
        run(&["check-config", "--limits", "some"]).refusal(),
        "flag --limits: limits.enabled: expected true or false, found \"some\""
    );
    assert_eq!(
        run(&["serve", "--listen", "4444"]).refusal(),
        "flag --listen: server.listen: expected an IP address and a port such as \"0.0.0.0:4444\" or \"[::]:4444\", found \"4444\""
    );
}

#[test]
fn port_sets_the_port_as_it_does_for_the_reference_server() {
    let listen = |environment: &[(&str, &str)]| {
        let said = run_with(&["check-config"], environment);
        said.out
            .lines()
            .find(|line| line.starts_with("listen = \"") && !line.contains("9464"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(listen(&[("PORT", "80")]), "listen = \"[::]:80\"  # environment variable PORT");
    assert_eq!(listen(&[("PORT", "")]), "listen = \"[::]:4444\"");
    let both = [("PORT", "80"), ("SIGNALING_SERVER_LISTEN", "127.0.0.1:1")];
    assert_eq!(listen(&both), "listen = \"127.0.0.1:1\"  # environment variable SIGNALING_SERVER_LISTEN");
    let refusal =
        "environment variable PORT: server.listen: expected a port number from 0 to 65535, found \"http\"";
    assert_eq!(run_with(&["check-config"], &[("PORT", "http")]).refusal(), refusal);
}

#[test]
fn a_data_directory_given_by_flag_means_that_rooms_are_kept_on_disk() {
    let files = Files::new();
    let file = files.write_text("signaling.toml", "[relay]\nmode = \"memory\"");
    let said = run(&["check-config", "--config", &file, "--data-dir", "/srv/rooms"]);
    for line in ["mode = \"disk\"  # flag --data-dir", "data_dir = \"/srv/rooms\"  # flag --data-dir"] {
        assert!(said.out.lines().any(|printed| printed == line), "no {line} in\n{}", said.out);
    }
    let refusal = "flag --data-dir: relay.data_dir: relay.mode = \"disk\" expects a directory here";
    assert_eq!(run(&["check-config", "--data-dir", ""]).refusal(), refusal);
}

#[test]
fn what_kubernetes_injects_for_a_service_called_signaling_is_no_mistake() {
    let injected = [
        ("SIGNALING_SERVICE_HOST", "10.0.0.1"),
        ("SIGNALING_SERVICE_PORT", "4444"),
        ("SIGNALING_PORT", "tcp://10.0.0.1:4444"),
        ("SIGNALING_PORT_4444_TCP_ADDR", "10.0.0.1"),
        ("SIGNALING_SERVER_PORT", "tcp://10.0.0.1:4444"),
    ];
    assert_eq!(run_with(&["check-config"], &injected).code, 0);
}

#[test]
fn a_shared_token_is_never_printed() {
    let content = "[access]\nmode = \"tokens\"\ntokens = [\"s3cret\"]";
    let (_, said) = check(content);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("(hidden)") && !said.out.contains("s3cret"), "{}", said.out);
    let config = content.parse::<Table>().unwrap().try_into::<Config>().unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let (_, said) = check("[access]\ntokens = [[\"s3cret\"]]");
    assert!(!said.refusal().contains("s3cret"));
}

//! What a description becomes, and what is said about one that is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use turn_config::description::Description;
use turn_config::render::render;

const GOLDEN: &str = include_str!("golden/turn.toml");
const GOLDEN_CONF: &str = include_str!("golden/turnserver.conf");
const SMALL: &str = "realm = \"turn.test\"\nsecrets.values = [\"a-secret-that-only-tests-know\"]\n";

/// A folder with the files that descriptions in these tests name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["turn.example.org".to_owned()]).unwrap();
    let another = rcgen::generate_simple_self_signed(vec!["turn.example.org".to_owned()]).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("fullchain.pem", &certified.cert.pem());
    write("privkey.pem", &certified.signing_key.serialize_pem());
    write("another.pem", &another.signing_key.serialize_pem());
    write("nonsense.pem", "nonsense\n");
    write("new.secret", "the-secret-after-the-change\n");
    write("empty.secret", "\n");
    folder
}

/// What is said about a description, a line for each problem.
fn problems(text: &str, folder: &Path) -> Vec<String> {
    let problems = Description::parse(text, folder).expect_err("this is refused");
    let folder = format!("{}/", folder.display());
    problems.to_string().lines().map(|line| line.replace(&folder, "")).collect()
}

fn turn_config(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turn-config")).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn every_line_of_the_configuration_is_as_it_was() {
    let folder = folder();
    let rendered = render(&Description::parse(GOLDEN, folder.path()).unwrap());
    let rendered = rendered.replace(&folder.path().display().to_string(), "/etc/turn");
    if std::env::var_os("BLESS").is_some() {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/turnserver.conf"), &rendered).unwrap();
    }
    assert_eq!(
        rendered, GOLDEN_CONF,
        "if this is meant: BLESS=1 cargo test -p turn-config --test description"
    );
}

#[test]
fn every_setting_stands_under_its_reason() {
    let lines: Vec<_> = GOLDEN_CONF.lines().collect();
    let settings = lines.iter().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (index, setting) in settings {
        assert!(lines[index - 1].starts_with("# "), "no reason for {setting}");
    }
}

#[test]
fn the_example_is_a_description_whose_comments_are_the_defaults() {
    let folder = folder();
    fs::write(folder.path().join("turn.secret"), "a-secret-that-only-tests-know").unwrap();
    let example = include_str!("../turn.example.toml");
    let as_it_is = render(&Description::parse(example, folder.path()).unwrap());
    // Each commented key, its default spelled out, except for the files and addresses that have no default.
    let no_default = ["certificate", "key", "listen =", "pid_file", "values"];
    let spelled_out: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !no_default.iter().any(|key| rest.starts_with(key)) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(spelled_out.contains("\nper_user = 100\n") && spelled_out.contains("\nallow = []\n"));
    assert_eq!(render(&Description::parse(&spelled_out, folder.path()).unwrap()), as_it_is);
    let small = Description::parse(&SMALL.replace("turn.test", "turn.example.org"), folder.path()).unwrap();
    assert_eq!(render(&small), as_it_is);
}

#[test]
fn every_problem_is_told_at_once_with_its_line() {
    let text = "\
realm = \"turn example\"
colour = \"red\"

[listen]
adresses = [\"192.0.2.1\"]
port = 70000
tls_port = \"443\"

[relay]
first_port = 1000
external = [\"somewhere\"]

[secrets]
files = [\"empty.secret\", \"missing.secret\"]

[peers]
allow = [\"10.0.0.0/8\", \"10.1.0.0/16\", \"10.2.0.1/16\"]
deny = [\"10.3.0.0/16\"]
";
    assert_eq!(
        problems(text, folder().path()),
        [
            "line 1: realm is \"turn example\", it takes a domain name of 1 to 127 bytes",
            "line 2: unknown key \"colour\" in the file",
            "line 5: unknown key \"adresses\" in [listen]; did you mean \"addresses\"?",
            "line 6: listen.port is 70000, it takes 1 to 65535",
            "line 7: listen.tls_port takes a whole number, and this is of type string",
            "line 10: relay.first_port is 1000, it takes 1024 to 65535",
            "line 11: relay.external is \"somewhere\", it takes \"PUBLIC\" or \"PUBLIC/PRIVATE\", two addresses of one family",
            "line 14: secret is empty",
            "line 14: secret file missing.secret cannot be read: No such file or directory (os error 2)",
            "line 17: peers.allow has 10.1.0.0/16, which overlaps 10.0.0.0/8",
            "line 17: 10.2.0.1/16 has bits after its prefix; the network is 10.2.0.0/16",
            "line 17: peers.allow has 10.2.0.1/16, which overlaps 10.0.0.0/8",
            "line 18: peers.deny has 10.3.0.0/16, but peers.allow has 10.0.0.0/8, and what is allowed always wins",
        ]
    );
}

#[test]
fn what_coturn_would_do_otherwise_than_expected_is_refused() {
    let folder = folder();
    let only = |lines: &str| {
        let problems = problems(&format!("{SMALL}{lines}"), folder.path());
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    };
    for (lines, expected) in [
        ("[relay]\nfirst_port = 6000\nlast_port = 5999", "line 5: last_port 5999 is before first_port 6000"),
        (
            "[relay]\nfirst_port = 3000\nlast_port = 4000",
            "line 5: port 3478 lies in the relay ports 3000 to 4000",
        ),
        ("[listen]\ntls_port = 60000", "line 4: tls_port 60000 lies in the relay ports 49152 to 65535"),
        ("[listen]\ntls_port = 3478", "line 4: tls_port and port are both 3478"),
        (
            "[listen]\naddresses = [\"0.0.0.0\"]",
            "line 4: listen.addresses has 0.0.0.0, which stands for all addresses; leave the list empty for that",
        ),
        (
            "[relay]\nexternal = [\"203.0.113.1/10.0.0.1\",\n\"203.0.113.2\"]",
            "line 5: relay.external has 203.0.113.2, which needs its private address (\"PUBLIC/PRIVATE\"), because there are several",
        ),
        (
            "[peers]\nallow = [\"0.0.0.0\"]",
            "line 4: peers.allow has 0.0.0.0/32, which coturn takes for every address there is, IPv4 and IPv6",
        ),
        (
            "[peers]\nallow = [\"::/3\"]",
            "line 4: peers.allow has ::/3, which coturn takes for every address there is, IPv4 and IPv6",
        ),
        (
            "[quotas]\ntotal = 100\nsession_bytes_per_second = 1000\ntotal_bytes_per_second = 99_000",
            "line 6: total_bytes_per_second 99000 holds 99 sessions of 1000 bytes/s, fewer than the 100 of quotas.total: coturn sets the full share aside for each",
        ),
        (
            "[tls]\ncertificate = \"fullchain.pem\"\nkey = \"missing.pem\"",
            "line 5: tls.key missing.pem: cannot be read: I/O error: No such file or directory (os error 2)",
        ),
        ("[tls]\ncertificate = \"fullchain.pem\"", "line 3: [tls] needs \"key\""),
        (
            "[process]\nlog = \"a file\"",
            "line 4: process.log is \"a file\", it takes a path without spaces, quotation marks and '#'",
        ),
        ("[metrics]\nlisten = 9641", "line 4: metrics.listen takes a text, and this is of type integer"),
        ("tls = 1", "line 3: tls takes a table, and this is of type integer"),
    ] {
        assert_eq!(only(lines), expected);
    }
    assert!(
        only("[tls]\ncertificate = \"nonsense.pem\"\nkey = \"privkey.pem\"")
            .contains("no certificate in PEM form")
    );
    assert!(
        only("[tls]\ncertificate = \"fullchain.pem\"\nkey = \"nonsense.pem\"")
            .starts_with("line 5: tls.key nonsense.pem: cannot be read")
    );
    assert!(
        only("[tls]\ncertificate = \"fullchain.pem\"\nkey = \"another.pem\"")
            .contains("does not go with the certificate")
    );
}

#[test]
fn a_secret_is_neither_missing_nor_empty_nor_one_of_three() {
    let folder = folder();
    let secrets =
        |lines: &str| problems(&format!("realm = \"turn.test\"\n[secrets]\n{lines}"), folder.path());
    let long = ["\"a-secret-of-sixteen\"", "\"b-secret-of-sixteen\"", "\"c-secret-of-sixteen\""];
    assert_eq!(secrets(""), ["line 2: [secrets] needs \"files\""]);
    assert_eq!(secrets("values = [\"\"]"), ["line 3: secret is empty"]);
    assert_eq!(
        secrets(&format!("values = [{}]", long.join(","))),
        ["line 3: secrets has 3 entries, limit is 2"]
    );
    assert_eq!(
        secrets(&format!("values = [{},{}]", long[0], long[0])),
        ["line 3: both secrets are the same; list it once"]
    );
    assert!(secrets("values = [\"short\"]")[0].starts_with("line 3: secret is 5 bytes, it takes 16 to 256"));
}

#[test]
fn what_is_no_toml_is_told_with_its_line_too() {
    let problems = problems("realm = \"turn.test\"\n[listen\nport = 3478\n", folder().path());
    assert!(problems[0].starts_with("line 2: "), "{problems:?}");
}

#[test]
fn a_refused_description_ends_with_code_2_and_leaves_the_old_file_alone() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("turn.toml"), "realm = \"turn.test\"\n[secrets]\nvalues = [\"\"]\n").unwrap();
    fs::write(path.join("turnserver.conf"), "the file before").unwrap();
    let before: Vec<_> = names(path);
    for arguments in [
        &["check", "turn.toml"][..],
        &["render", "turn.toml"],
        &["render", "turn.toml", "--output", "turnserver.conf"],
    ] {
        let output = turn_config(path, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "turn.toml:3: secret is empty\n");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(fs::read_to_string(path.join("turnserver.conf")).unwrap(), "the file before");
    assert_eq!(names(path), before, "a part of a file was left behind");
}

#[test]
fn a_written_file_is_whole_and_for_its_owner_alone() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("turn.toml"), SMALL).unwrap();
    let printed = turn_config(path, &["render", "turn.toml"]);
    let written = turn_config(path, &["render", "turn.toml", "--output", "turnserver.conf"]);
    assert!(printed.status.success() && written.status.success(), "{written:?}");
    let conf = path.join("turnserver.conf");
    assert_eq!(fs::read(&conf).unwrap(), printed.stdout);
    let mode = || fs::metadata(&conf).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);

    fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(turn_config(path, &["render", "turn.toml", "--output", "turnserver.conf"]).status.success());
    assert_eq!(mode(), 0o640, "coturn can no longer read it");

    let nowhere = turn_config(path, &["render", "turn.toml", "--output", "missing/turnserver.conf"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
}

#[test]
fn a_credential_is_printed_for_a_server_or_for_a_browser() {
    let folder = folder();
    let credential = |arguments: &[&str]| {
        let fixed = ["credential", "--secret-file", "new.secret", "--ttl", "10m", "--user", "u1"];
        let output = turn_config(folder.path(), &[&fixed, arguments].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let plain = credential(&[]);
    assert_eq!(plain["ttl"], 600);
    assert!(plain["username"].as_str().unwrap().ends_with(":u1"));
    let server = credential(&["--url", "turn:turn.test"])["iceServers"][0].clone();
    assert_eq!(server["urls"], serde_json::json!(["turn:turn.test"]));
    assert!(server["credential"].is_string());

    let without = turn_config(folder.path(), &["credential"]);
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("no secret"), "{without:?}");
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

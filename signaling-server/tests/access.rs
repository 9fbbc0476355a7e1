//! Tokens open what they say, to whom they say, while they say; nothing else does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/command.rs"]
mod command;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use command::Files;
use http::HeaderMap;
use jsonwebtoken::{EncodingKey, Header, encode};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::{Value, json};
use signaling_server::access::{Access, Claims, Grant, Presented, Refusal, Role, SigningKey};
use signaling_server::config::{AccessConfig, AccessMode, Algorithm, Period, Secret};
use signaling_server::watched::Change;
use support::{TestServer, upgrade_status};

const SECRET: &str = "an HS256 secret of thirty-two bytes or more";

/// 14 November 2023, a Tuesday.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

const NOW: u64 = 1_700_000_000;

fn claims() -> Claims {
    Claims {
        exp: NOW + 3600,
        rooms: vec!["peer-plan-*".to_owned(), "lobby".to_owned()],
        role: "write",
        sub: Some("ana".to_owned()),
        aud: None,
        iss: None,
    }
}

fn signed(keys_file: PathBuf) -> AccessConfig {
    AccessConfig { mode: AccessMode::Signed, keys_file: Some(keys_file), ..AccessConfig::default() }
}

fn admit(config: &AccessConfig, token: &str) -> Result<Grant, Refusal> {
    Access::from_config(config).unwrap().admit(&Presented::bearer(token), now())
}

/// A token with any claims and header at all, signed with [`SECRET`].
fn token(header: &Header, claims: &Value) -> String {
    encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// What a server that trusts [`SECRET`] says to these claims.
fn said_to(claims: &Value) -> Result<Grant, Refusal> {
    let files = Files::new();
    admit(&signed(files.write("secret", SECRET)), &token(&Header::default(), claims))
}

/// A key pair of each kind that signs, as the files of its private and its public key.
fn key_pairs(files: &Files) -> Vec<(&'static str, PathBuf, PathBuf)> {
    let pair = |name: &'static str, pair: KeyPair| {
        let private = files.write(&format!("{name}.key"), pair.serialize_pem());
        let public = files.write(&format!("{name}.pub"), pair.public_key_pem());
        (name, private, public)
    };
    let secret = files.write("HS256", format!("{SECRET}\n"));
    vec![
        ("HS256", secret.clone(), secret),
        pair("EdDSA", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
        pair("ES256", KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()),
        pair("RS256", KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()),
    ]
}

fn sign(private: &Path, claims: &Claims) -> String {
    SigningKey::from_file(private).unwrap().sign(claims).unwrap()
}

#[test]
fn a_signed_token_opens_the_rooms_it_names_and_no_others() {
    let files = Files::new();
    for (name, private, public) in key_pairs(&files) {
        let grant =
            admit(&signed(public), &sign(&private, &claims())).unwrap_or_else(|e| panic!("{name}: {e}"));
        for open in ["peer-plan-7", "peer-plan-", "lobby"] {
            assert!(
                grant.may_subscribe(open.as_bytes()) && grant.may_publish(open.as_bytes()),
                "{name} {open}"
            );
        }
        for shut in ["lobby2", "", "plan", "Lobby", "*"] {
            assert!(
                !grant.may_subscribe(shut.as_bytes()) && !grant.may_publish(shut.as_bytes()),
                "{name} {shut}"
            );
        }
        assert_eq!((grant.subject(), grant.role()), (Some("ana"), Role::Write), "{name}");
        assert_eq!(grant.expires(), Some(now() + Duration::from_secs(3600 + 60)), "{name}");
    }
}

#[test]
fn a_token_of_another_key_is_refused_whatever_the_kinds() {
    let (ours, theirs) = (Files::new(), Files::new());
    let other = theirs.write("other", "a secret of somebody else, long enough");
    for (name, _, public) in key_pairs(&ours) {
        for (foreign, private, _) in key_pairs(&theirs) {
            let private = if foreign == "HS256" { &other } else { &private };
            let refusal = admit(&signed(public.clone()), &sign(private, &claims())).unwrap_err();
            let expected = if name == foreign { Refusal::BadSignature } else { Refusal::UnknownKey };
            assert_eq!(refusal, expected, "{name} asked with {foreign}");
        }
    }
}

#[test]
fn a_public_key_can_not_be_passed_off_as_a_secret() {
    let files = Files::new();
    for (name, _, public) in key_pairs(&files).into_iter().skip(1) {
        let pem = std::fs::read(&public).unwrap();
        for secret in [&pem[..], pem.trim_ascii()] {
            let claims = json!({"exp": NOW + 9, "rooms": "*"});
            let forged = encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(admit(&signed(public.clone()), &forged).unwrap_err(), Refusal::UnknownKey, "{name}");
        }
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let files = Files::new();
    let config = signed(files.write("secret", SECRET));
    // {"alg":"none"}.{"exp":9999999999,"rooms":"*"}
    for unsigned in
        ["eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksInJvb21zIjoiKiJ9.", "..", "", "a.b.c", "\u{FFFD}"]
    {
        assert_eq!(admit(&config, unsigned).unwrap_err(), Refusal::MalformedToken, "{unsigned}");
    }
    let sound = token(&Header::default(), &json!({"exp": NOW + 9, "rooms": "*"}));
    let stripped = &sound[..=sound.rfind('.').unwrap()];
    assert_eq!(admit(&config, stripped).unwrap_err(), Refusal::BadSignature);
}

#[test]
fn a_token_counts_from_nbf_to_exp_give_or_take_the_leeway() {
    let at = |exp: Value, nbf: Value| said_to(&json!({"exp": exp, "nbf": nbf, "rooms": "*"})).err();
    assert_eq!(at(json!(NOW + 1), Value::Null), None);
    assert_eq!(at(json!(NOW - 59), Value::Null), None);
    assert_eq!(at(json!(NOW - 60), Value::Null), Some(Refusal::Expired));
    assert_eq!(at(json!(NOW as f64 + 0.5), json!(NOW as f64 - 0.5)), None);
    assert_eq!(at(json!(NOW + 99), json!(NOW + 60)), None);
    assert_eq!(at(json!(NOW + 99), json!(NOW + 61)), Some(Refusal::NotYetValid));
    assert_eq!(at(Value::Null, Value::Null), Some(Refusal::MissingExpiry));
    assert_eq!(at(json!(0), Value::Null), Some(Refusal::Expired));
    assert_eq!(at(json!(-5), Value::Null), Some(Refusal::Expired));
    assert_eq!(at(json!(1e300), Value::Null), Some(Refusal::MalformedToken));
    assert_eq!(at(json!("tomorrow"), Value::Null), Some(Refusal::MalformedToken));
}

#[test]
fn only_an_explicit_write_may_publish() {
    for (role, may_publish) in [(json!("write"), true), (json!("read"), false), (Value::Null, false)] {
        let grant = said_to(&json!({"exp": NOW + 9, "rooms": "*", "role": role})).unwrap();
        assert!(grant.may_subscribe(b"any"));
        assert_eq!(grant.may_publish(b"any"), may_publish, "{role}");
    }
    let refusal = said_to(&json!({"exp": NOW + 9, "rooms": "*", "role": "owner"})).unwrap_err();
    assert_eq!(refusal, Refusal::MalformedToken);
}

#[test]
fn a_token_that_names_no_rooms_is_refused() {
    let with = |rooms: Value| said_to(&json!({"exp": NOW + 9, "rooms": rooms}));
    assert_eq!(with(Value::Null).unwrap_err(), Refusal::NoRooms);
    assert_eq!(with(json!([])).unwrap_err(), Refusal::NoRooms);
    assert_eq!(with(json!(7)).unwrap_err(), Refusal::MalformedToken);
    assert!(with(json!("one")).unwrap().may_subscribe(b"one"));
    assert!(with(json!(["a", "b?"])).unwrap().may_subscribe(b"b1"));
    // A room's name may hold a lone surrogate, which no token can spell; a pattern still covers it.
    assert!(with(json!("room-*")).unwrap().may_subscribe(b"room-\xED\xA0\x80"));
}

#[test]
fn a_critical_extension_nobody_knows_is_refused() {
    let files = Files::new();
    let header = Header { crit: Some(vec!["exp".to_owned()]), ..Header::default() };
    let token = token(&header, &json!({"exp": NOW + 9, "rooms": "*"}));
    assert_eq!(admit(&signed(files.write("secret", SECRET)), &token).unwrap_err(), Refusal::MalformedToken);
}

#[test]
fn audience_and_issuer_are_checked_when_they_are_set() {
    let files = Files::new();
    let config = AccessConfig {
        audience: Some("signaling".to_owned()),
        issuer: Some("app".to_owned()),
        ..signed(files.write("secret", SECRET))
    };
    let said = |aud: Value, iss: Value| {
        let claims = json!({"exp": NOW + 9, "rooms": "*", "aud": aud, "iss": iss});
        admit(&config, &token(&Header::default(), &claims)).err()
    };
    assert_eq!(said(json!("signaling"), json!("app")), None);
    assert_eq!(said(json!(["x", "signaling"]), json!("app")), None);
    assert_eq!(said(json!("x"), json!("app")), Some(Refusal::WrongAudience));
    assert_eq!(said(Value::Null, json!("app")), Some(Refusal::WrongAudience));
    assert_eq!(said(json!("signaling"), json!("x")), Some(Refusal::WrongIssuer));
    assert_eq!(said(json!("signaling"), Value::Null), Some(Refusal::WrongIssuer));
}

#[test]
fn an_algorithm_that_is_not_allowed_is_not_used() {
    let files = Files::new();
    let config = AccessConfig { algorithms: vec![Algorithm::EdDSA], ..signed(files.write("secret", SECRET)) };
    let token = token(&Header::default(), &json!({"exp": NOW + 9, "rooms": "*"}));
    assert_eq!(admit(&config, &token).unwrap_err(), Refusal::UnknownKey);
}

/// An `oct` key, as a JWK set has it.
fn oct(kid: &str, secret: &str) -> Value {
    use base64::Engine;
    let k = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    json!({"kty": "oct", "kid": kid, "k": k})
}

fn with_kid(kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
    token(&header, &json!({"exp": NOW + 9, "rooms": "*"}))
}

#[test]
fn the_kid_chooses_the_key_of_a_set_and_foreign_keys_do_not_disturb() {
    let files = Files::new();
    let other = "another secret of thirty-two bytes or more";
    let keys = json!({"keys": [
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
        {"kty": "made-up", "kid": "x"},
        {"kty": "oct", "kid": "short", "k": "c2hvcnQ"},
        "nonsense",
        oct("other", other),
        oct("ours", SECRET),
    ]});
    let jwks_file = Some(files.write("jwks.json", keys.to_string()));
    let config = AccessConfig { mode: AccessMode::Signed, jwks_file, ..AccessConfig::default() };
    assert_eq!(admit(&config, &with_kid(Some("ours"))).err(), None);
    assert_eq!(admit(&config, &with_kid(None)).err(), None);
    assert_eq!(admit(&config, &with_kid(Some("other"))).err(), Some(Refusal::BadSignature));
    assert_eq!(admit(&config, &with_kid(Some("gone"))).err(), Some(Refusal::UnknownKey));
    assert_eq!(admit(&config, &with_kid(Some("short"))).err(), Some(Refusal::UnknownKey));
}

#[test]
fn a_public_key_of_a_set_verifies_what_its_private_key_signed() {
    use base64::Engine;
    let files = Files::new();
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": x}]});
    let private = files.write("key", pair.serialize_pem());
    let jwks_file = Some(files.write("jwks.json", keys.to_string()));
    let config = AccessConfig { mode: AccessMode::Signed, jwks_file, ..AccessConfig::default() };
    assert!(admit(&config, &sign(&private, &claims())).unwrap().may_publish(b"lobby"));
}

#[tokio::test]
async fn keys_are_exchanged_on_disk_and_bad_ones_change_nothing() {
    let files = Files::new();
    let jwks = files.write("jwks.json", json!({"keys": [oct("old", &SECRET.to_uppercase())]}).to_string());
    let config = AccessConfig {
        mode: AccessMode::Signed,
        jwks_file: Some(jwks.clone()),
        reload_interval: Period::millis(5),
        ..AccessConfig::default()
    };
    let access = Arc::new(Access::from_config(&config).unwrap());
    let (changes, mut changed) = tokio::sync::mpsc::channel(8);
    let watching = tokio::spawn(Arc::clone(&access).watch(move |change| {
        changes.try_send(change.clone()).unwrap();
    }));
    let admitted = || access.admit(&Presented::bearer(with_kid(Some("new"))), now()).is_ok();
    assert!(!admitted());

    std::fs::write(&jwks, json!({"keys": [oct("new", SECRET)]}).to_string()).unwrap();
    // A reader may find the file half written; then the next look finds the rest.
    while changed.recv().await != Some(Change::Renewed) {}
    assert!(admitted());

    std::fs::write(&jwks, "{").unwrap();
    let refused = loop {
        match changed.recv().await.unwrap() {
            Change::Refused(error) if error.problem.contains("line 1 column 1") => break error.to_string(),
            Change::Refused(_) => {}
            change => panic!("{change:?}"),
        }
    };
    assert!(refused.starts_with(jwks.to_str().unwrap()), "{refused}");
    assert!(admitted());
    watching.abort();
}

#[test]
fn key_files_that_are_none_are_refused_by_name_and_never_quoted() {
    let files = Files::new();
    let pairs = key_pairs(&files);
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().public_key_pem();
    let private = std::fs::read(&pairs[1].1).unwrap();
    for (content, problem) in [
        (b"hunter2".to_vec(), "expected a PEM public key or a secret of at least 32 bytes, found 7 bytes"),
        (private, "expected a public key (Ed25519, P-256 or RSA), found a PEM block \"PRIVATE KEY\""),
        (p384.into_bytes(), "found an elliptic-curve key that is not P-256"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec(), "expected a public key"),
        (b"-----BEGIN PUBLIC KEY-----\n".to_vec(), "expected PEM"),
    ] {
        let path = files.write("key", &content);
        let error = Access::from_config(&signed(path.clone())).unwrap_err().to_string();
        assert!(error.starts_with(&format!("access.keys_file: {}: ", path.display())), "{error}");
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains('\n') && !error.contains("hunter2"), "{error}");
    }
    let jwks_file = Some(files.write("jwks.json", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"aHVudGVyMg\"}]}"));
    let config = AccessConfig { mode: AccessMode::Signed, jwks_file, ..AccessConfig::default() };
    let error = Access::from_config(&config).unwrap_err().to_string();
    assert!(error.starts_with("access.jwks_file: ") && error.ends_with("found none"), "{error}");
}

#[test]
fn a_shared_token_opens_everything_and_anything_else_nothing() {
    let files = Files::new();
    let config = AccessConfig {
        mode: AccessMode::Tokens,
        tokens: vec![Secret::new("first"), Secret::new("second")],
        tokens_file: Some(files.write("tokens", "# for the schools\n\nthird  \n")),
        ..AccessConfig::default()
    };
    for token in ["first", "second", "third"] {
        assert_eq!(admit(&config, token).unwrap(), Grant::everything(), "{token}");
    }
    for token in ["", "firs", "firstt", "First", "# for the schools", "third  "] {
        assert_eq!(admit(&config, token).unwrap_err(), Refusal::WrongToken, "{token}");
    }
    let access = Access::from_config(&config).unwrap();
    assert_eq!(access.admit(&Presented::default(), now()).unwrap_err(), Refusal::MissingToken);
}

#[test]
fn a_page_from_elsewhere_is_refused_before_its_token_is_looked_at() {
    let config = AccessConfig {
        origins: vec!["https://app.example.com".to_owned(), "https://*.example.org".to_owned()],
        ..AccessConfig::default()
    };
    let access = Access::from_config(&config).unwrap();
    let from = |origin: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("origin", origin.parse().unwrap());
        access.admit(&access.presented(&headers, &"/".parse().unwrap()), now()).err()
    };
    for listed in ["https://app.example.com", "https://APP.example.com", "https://a.example.org"] {
        assert_eq!(from(listed), None, "{listed}");
    }
    for stranger in ["http://app.example.com", "https://app.example.com.evil", "https://example.org", "null"]
    {
        assert_eq!(from(stranger), Some(Refusal::OriginNotAllowed), "{stranger}");
    }
    assert_eq!(access.admit(&Presented::default(), now()).err(), None, "no browser page");
}

#[test]
fn every_refusal_has_its_own_label_and_a_status() {
    let labels: std::collections::HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
    for refusal in Refusal::ALL {
        assert!(matches!(refusal.status().as_u16(), 401 | 403), "{refusal}");
    }
}

#[tokio::test]
async fn a_refused_request_is_answered_before_the_upgrade() {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let server = TestServer::with(|config| config.access = signed(secret.clone())).await;
    let sound = sign(&secret, &Claims { exp: 9_999_999_999, ..claims() });
    let stale = sign(&secret, &claims());
    let url = format!("{}?token=", server.url());
    assert_eq!(upgrade_status(&format!("{url}{sound}"), &[]).await, 101);
    assert_eq!(upgrade_status(&format!("{url}{stale}"), &[]).await, 401);
    assert_eq!(upgrade_status(&server.url(), &[]).await, 401);
    let bearer = format!("Bearer {sound}");
    assert_eq!(upgrade_status(&server.url(), &[("authorization", &bearer)]).await, 101);
    let cookie = format!("a=b; signaling_token={sound}");
    assert_eq!(upgrade_status(&server.url(), &[("cookie", &cookie)]).await, 101);
    // The first that is there counts, and it is not made up for by another.
    assert_eq!(upgrade_status(&format!("{url}{stale}"), &[("authorization", &bearer)]).await, 401);
}

proptest! {
    #[test]
    fn no_made_up_token_is_admitted_or_panics(token in "\\PC{0,80}|[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}") {
        let files = Files::new();
        prop_assert!(admit(&signed(files.write("secret", SECRET)), &token).is_err());
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(at in any::<prop::sample::Index>(), byte in b'!'..b'~') {
        let files = Files::new();
        let config = signed(files.write("secret", SECRET));
        let mut changed = token(&Header::default(), &json!({"exp": NOW + 9, "rooms": "*"})).into_bytes();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        prop_assert!(admit(&config, std::str::from_utf8(&changed).unwrap()).is_err());
    }
}

//! The files of `vectors/`, which every implementation of the peer runs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use loro::{Counter, PeerID};
use serde_json::Value;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

pub(in crate::engine) fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(directory().join(name).with_extension("json")).unwrap()).unwrap()
}

pub(in crate::engine) fn cases(name: &str, list: &str) -> Vec<Value> {
    let cases = read(name)[list].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{name} has no {list}");
    cases
}

/// Bytes in hex.
pub(in crate::engine) fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// An author, and how far it got.
pub(in crate::engine) fn counter(entry: &Value) -> (PeerID, Counter) {
    (entry[0].as_str().unwrap().parse().unwrap(), entry[1].as_i64().unwrap().try_into().unwrap())
}

#[test]
fn there_is_no_file_that_is_not_run_here() {
    let files = directory().read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let run = ["backoff", "dice", "engine", "presence", "ring", "version"].map(|name| format!("{name}.json"));
    assert_eq!(files.collect::<BTreeSet<_>>(), BTreeSet::from(run));
}

//! The fuzz targets without libFuzzer: each committed input, then seeded mutations of them for a bounded time.
//!
//! `FUZZ_SECONDS` sets how long each target runs (default 2), `FUZZ_SEED` where its generator starts (default 1).
//! The input that broke a promise is printed as a Rust byte string.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

#[path = "../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate, where they are at home, exports them")]
mod targets;

/// xorshift64*: enough to choose mutations, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Pieces that a mutation would hardly come upon byte by byte.
const WORDS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\ude00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\"clients\":1,",
    b"\"cl\\u0069ents\":[],",
    b"\"topic\":\"t\",",
    b"\"type\":\"publish\",",
    b"\"data\":{\"to\":\"b\"},",
    b"1e5",
    b"-0",
    b"null",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
];

const LONGEST: usize = 4096;

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.pick(corpus).clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        let instead = match random.below(7) {
            0 => vec![random.next() as u8],
            1 => random.pick(&WORDS).to_vec(),
            2 => input[at..end].repeat(2),
            3 => input.get(at).map(|byte| byte ^ 1 << random.below(8)).into_iter().collect(),
            4 => {
                let other = random.pick(corpus);
                let from = random.below(other.len());
                other[from..].to_vec()
            }
            5 => {
                input.truncate(end);
                Vec::new()
            }
            _ => Vec::new(),
        };
        input.splice(at..end, instead);
        input.truncate(LONGEST);
    }
    input
}

/// Prints the input if the target panics.
struct Witness<'a>(&'a [u8]);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("input: b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}, expected a number")),
        Err(_) => default,
    }
}

fn committed(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(directory).expect("the corpus is in the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable corpus").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a readable input")).collect()
}

fn drive(name: &str, target: fn(&[u8])) {
    let corpus = committed(name);
    assert!(!corpus.is_empty(), "no committed inputs for {name}");
    for input in &corpus {
        let _witness = Witness(input);
        target(input);
    }
    let mut random = Random::new(number("FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 2));
    let mut runs = 0_u64;
    while Instant::now() < end {
        for _ in 0..100 {
            let input = mutate(&mut random, &corpus);
            let _witness = Witness(&input);
            target(&input);
        }
        runs += 100;
    }
    println!("{name}: {} committed inputs, {runs} mutations", corpus.len());
}

#[test]
fn the_dialect_target_holds_for_seeded_mutations() {
    drive("dialect", targets::dialect);
}

#[test]
fn the_signal_target_holds_for_seeded_mutations() {
    drive("signal", targets::signal);
}

#[test]
fn the_sync_target_holds_for_seeded_mutations() {
    drive("sync", targets::sync);
}

#[test]
fn the_sealed_target_holds_for_seeded_mutations() {
    drive("sealed", targets::sealed);
}

#[test]
fn the_fragment_target_holds_for_seeded_mutations() {
    drive("fragment", targets::fragment);
}

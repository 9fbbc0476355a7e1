//! Patterns for room names and origins: `*` stands for any run of characters, `/` among them, `?` for exactly one;
//! everything else for itself. There is no escape: a room called `a*` is opened by `a*`, as are its namesakes.

/// One pattern. Matching never recurses, and takes at most pattern length times name length steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Box<[u8]>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.as_bytes().into())
    }

    /// Whether the whole of `name` is what the pattern says.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let pattern = &self.0;
        let (mut p, mut n) = (0, 0);
        // Where to go on after the last star: the star swallows one more byte each time.
        let mut retry = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(b'?') => {
                    p += 1;
                    n = next_character(name, n);
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after_star, swallowed)) = retry else {
                        return false;
                    };
                    retry = Some((after_star, next_character(name, swallowed)));
                    p = after_star;
                    n = next_character(name, swallowed);
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

/// Where the character after the one at `at` begins, in UTF-8 and in its extension to lone surrogates alike.
fn next_character(name: &[u8], at: usize) -> usize {
    let rest = name.get(at + 1..).unwrap_or_default();
    at + 1 + rest.iter().take_while(|byte| **byte & 0xC0 == 0x80).count()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).matches(name.as_bytes())
    }

    #[test]
    fn a_name_without_wildcards_matches_itself_alone() {
        assert!(matches("peer-plan-7", "peer-plan-7"));
        assert!(matches("", ""));
        for other in ["peer-plan-77", "peer-plan-", "Peer-plan-7", "", "xpeer-plan-7"] {
            assert!(!matches("peer-plan-7", other), "{other}");
        }
        assert!(!matches("", "x"));
        assert!(matches("[a]{b}\\", "[a]{b}\\"));
    }

    #[test]
    fn a_star_is_any_run_and_a_question_mark_one_character() {
        for name in ["peer-plan-", "peer-plan-7", "peer-plan-a/b/c", "peer-plan-*"] {
            assert!(matches("peer-plan-*", name), "{name}");
        }
        assert!(!matches("peer-plan-*", "peer-pla"));
        assert!(matches("*", "") && matches("*", "anything/at all") && matches("**", "x"));
        assert!(matches("a*b*c", "aXbYbZc") && !matches("a*b*c", "aXbYbZ"));
        assert!(matches("room-?", "room-7") && matches("room-?", "room-é") && matches("room-?", "room-🦀"));
        assert!(!matches("room-?", "room-") && !matches("room-?", "room-77"));
        assert!(matches("*?x", "ééx") && matches("?*", "é") && !matches("?*", ""));
    }

    #[test]
    fn a_lone_surrogate_is_one_character() {
        assert!(Glob::new("a?b").matches(b"a\xED\xA0\x80b"));
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length_times_the_name() {
        let pattern = "*a".repeat(500) + "b";
        let name = "a".repeat(4000);
        let started = Instant::now();
        assert!(!matches(&pattern, &name));
        assert!(started.elapsed() < Duration::from_secs(1));
    }

    /// The same question answered in the obvious, exponential way.
    fn obviously(pattern: &[char], name: &[char]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some('*'), _) if obviously(&pattern[1..], name) => true,
            (Some('*'), Some(_)) => obviously(pattern, &name[1..]),
            (Some('?'), Some(_)) => obviously(&pattern[1..], &name[1..]),
            (Some(p), Some(n)) if p == n => obviously(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_obvious_way(pattern in "[abé*?]{0,8}", name in "[abé*]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), obviously(&chars(&pattern), &chars(&name)));
        }
    }
}

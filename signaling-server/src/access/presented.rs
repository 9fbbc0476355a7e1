//! What a request shows of its sender.

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use super::Refusal;

/// The longest token looked at. A JWT with a hundred room names is about 4 KiB.
const MAX_TOKEN: usize = 16 * 1024;

/// What a request shows of its sender: a token and an origin, if it has them.
#[derive(Clone, Default)]
pub struct Presented {
    token: Option<String>,
    pub(super) origin: Option<String>,
}

impl Presented {
    /// The token of `?token=`, or else of `Authorization: Bearer`, or else of the cookie with that name; empty ones
    /// count as absent. In the query `%41` is decoded and `+` is itself.
    pub(super) fn from_request(headers: &HeaderMap, uri: &Uri, cookie: &str) -> Self {
        let token =
            in_query(uri).or_else(|| in_authorization(headers)).or_else(|| in_cookie(headers, cookie));
        let origin =
            headers.get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()).into_owned());
        Self { token: token.map(Cow::into_owned), origin }
    }

    /// A token that came some other way, with no origin.
    pub fn bearer(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), origin: None }
    }

    pub(super) fn token(&self) -> Result<&str, Refusal> {
        let token = self.token.as_deref().ok_or(Refusal::MissingToken)?;
        if token.len() > MAX_TOKEN { Err(Refusal::MalformedToken) } else { Ok(token) }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}

fn in_query(uri: &Uri) -> Option<Cow<'_, str>> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, value)| *name == "token" && !value.is_empty())
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
        .next()
}

fn in_authorization(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    present(scheme.eq_ignore_ascii_case("bearer").then_some(token)?)
}

fn in_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies =
        lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, value) = cookies.find(|(found, _)| *found == name)?;
    present(value)
}

fn present(token: &str) -> Option<Cow<'_, str>> {
    let token = token.trim();
    (!token.is_empty()).then_some(Cow::Borrowed(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(uri: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Presented::from_request(&map, &uri.parse().unwrap(), "signaling_token").token
    }

    #[test]
    fn the_query_wins_over_the_header_and_the_header_over_the_cookie() {
        let header = ("authorization", "Bearer h");
        let cookie = ("cookie", "a=b; signaling_token=c");
        assert_eq!(token("/room?x=1&token=q", &[header, cookie]).as_deref(), Some("q"));
        assert_eq!(token("/room", &[cookie, header]).as_deref(), Some("h"));
        assert_eq!(token("/room", &[cookie]).as_deref(), Some("c"));
        assert_eq!(token("/room", &[]), None);
    }

    #[test]
    fn an_empty_token_counts_as_absent() {
        assert_eq!(token("/?token=", &[("authorization", "bearer h")]).as_deref(), Some("h"));
        assert_eq!(token("/?token=&token=q", &[]).as_deref(), Some("q"));
        assert_eq!(token("/?token", &[("authorization", "Bearer ")]), None);
        assert_eq!(token("/?mytoken=q", &[("cookie", "signaling_token=")]), None);
    }

    #[test]
    fn a_token_in_the_query_is_percent_decoded_and_keeps_its_plus_signs() {
        assert_eq!(token("/?token=a+b%2Fc%3D%3D", &[]).as_deref(), Some("a+b/c=="));
        assert_eq!(token("/?token=%FF", &[]).as_deref(), Some("\u{FFFD}"));
    }

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        assert_eq!(token("/", &[("authorization", "Basic dXNlcg==")]), None);
        assert_eq!(token("/", &[("authorization", "bearer")]), None);
    }

    #[test]
    fn its_debug_output_holds_no_token() {
        assert!(!format!("{:?}", Presented::bearer("s3cret")).contains("s3cret"));
    }
}

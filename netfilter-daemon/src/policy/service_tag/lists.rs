//! Where lists of service tags come from, as a policy names them.

use std::time::Duration;

use super::BUILT_IN_NAME;

/// The clouds publish once a day at most, Azure once a week.
pub const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

const HTTPS: &str = "https://";

/// The policy's `service_tags`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// Merged in this order; never empty.
    pub from: Vec<Source>,
    /// How often they are looked at, files too.
    pub every: Duration,
    /// A PEM file, relative to the policy: the certificate authorities that are
    /// believed, and no others. `None`: those that browsers believe.
    pub ca: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    BuiltIn,
    /// As written: relative to the policy.
    File(String),
    /// `https://`, and checked to be one.
    Url(String),
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            from: vec![Source::BuiltIn],
            every: EVERY,
            ca: None,
        }
    }
}

impl Lists {
    /// Those that can change: all but the built-in one.
    pub fn changing(&self) -> impl Iterator<Item = &Source> {
        let changes = |source: &&Source| **source != Source::BuiltIn;
        self.from.iter().filter(changes)
    }
}

impl Source {
    /// What is wrong, and what would be right, where it is none.
    pub fn parse(written: &str) -> Result<Self, String> {
        if written == BUILT_IN_NAME {
            return Ok(Self::BuiltIn);
        }
        let Some((scheme, rest)) = written.split_once("://") else {
            return Ok(Self::File(written.to_owned()));
        };
        match scheme {
            "https" if is_plain(rest) => Ok(Self::Url(written.to_owned())),
            "https" => Err(format!(
                "`{written}` is no address that can be fetched; write one such as \
                 https://ip-ranges.amazonaws.com/ip-ranges.json, without user name or fragment"
            )),
            "http" => Err(format!(
                "what comes over plain HTTP can be forged on its way; write `{HTTPS}{rest}`"
            )),
            other => Err(format!(
                "a list is not fetched over `{other}`; write an address that begins with \
                 {HTTPS}, or a file"
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::BuiltIn => BUILT_IN_NAME,
            Self::File(path) => path,
            Self::Url(url) => url,
        }
    }
}

/// Of an `https://` address: its host and its port.
pub fn host(url: &str) -> (&str, u16) {
    let rest = url.strip_prefix(HTTPS).unwrap_or(url);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(443)),
        _ => (authority, 443),
    }
}

/// Whether what follows `https://` is a host, maybe a port, a path and a query.
fn is_plain(rest: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    rest.bytes().all(legal)
        && !authority.contains('@')
        && !host.is_empty()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_on_the_web_is_a_file() {
        for file in ["tags.json", "./a/tags.json", "/etc/tags.json", "https.json"] {
            assert_eq!(Source::parse(file), Ok(Source::File(file.to_owned())));
        }
        assert_eq!(Source::parse("built-in"), Ok(Source::BuiltIn));
    }

    #[test]
    fn only_https_is_fetched() {
        let url = "https://lists.example/a?id=1";
        assert_eq!(Source::parse(url), Ok(Source::Url(url.to_owned())));
        let plain = Source::parse("http://lists.example/a").unwrap_err();
        assert!(plain.contains("write `https://lists.example/a`"), "{plain}");
        let other = Source::parse("ftp://lists.example/a").unwrap_err();
        assert!(other.contains("`ftp`"), "{other}");
    }

    #[test]
    fn an_address_with_more_than_host_port_path_and_query_is_refused() {
        for rest in [
            "",
            "/a",
            ":443/a",
            "me@lists.example/",
            "lists.example:0/",
            "lists.example:x/",
            "lists.example/a b",
            "lists.example/#a",
            "lists.example/\u{e9}",
        ] {
            assert!(Source::parse(&format!("https://{rest}")).is_err(), "{rest}");
        }
    }

    #[test]
    fn the_host_and_the_port_are_told_apart() {
        assert_eq!(host("https://lists.example/a:1"), ("lists.example", 443));
        assert_eq!(
            host("https://lists.example:8443?a"),
            ("lists.example", 8443)
        );
        assert_eq!(host("https://[2001:db8::1]/a"), ("[2001:db8::1]", 443));
        assert_eq!(host("https://[2001:db8::1]:44/"), ("[2001:db8::1]", 44));
    }
}

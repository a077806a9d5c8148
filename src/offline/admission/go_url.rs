//! URLs as Kubernetes parses them, with Go's `url.ParseRequestURI`. It accepts some that no client can
//! connect to, such as `http://1.2.3.4.5` or a port above 65535, and rejects some that browsers repair.

use std::net::Ipv6Addr;

/// The parts of a parsed URL that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoUrl {
    scheme: String,
    /// Without port and brackets.
    hostname: String,
}

impl GoUrl {
    /// Whether it has an HTTP scheme and a host.
    #[must_use]
    pub fn is_http_with_a_host(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https") && !self.hostname.is_empty()
    }
}

/// Parses a URL; returns `None` if Go would reject it.
#[must_use]
pub fn parse(text: &str) -> Option<GoUrl> {
    if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return None;
    }
    let (scheme, rest) = scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    if !rest.starts_with('/') {
        // The rest after a scheme without a slash is opaque to Go.
        return (!scheme.is_empty()).then(|| GoUrl { scheme, hostname: String::new() });
    }
    let (hostname, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(authority) => {
            let end = authority.find('/').unwrap_or(authority.len());
            let (authority, path) = authority.split_at(end);
            (hostname(authority)?, path)
        }
        None => (String::new(), rest),
    };
    has_good_escapes(path).then_some(GoUrl { scheme, hostname })
}

/// Returns the scheme in lower case, empty if there is none, and the rest.
fn scheme(text: &str) -> Option<(String, &str)> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return None,
            b':' => return Some((text[..index].to_ascii_lowercase(), &text[index + 1..])),
            _ => break,
        }
    }
    Some((String::new(), text))
}

/// Returns the host name in `user:password@host:port`.
fn hostname(authority: &str) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(open) = host.rfind('[') {
        let close = host.rfind(']').filter(|close| *close > open)?;
        let address = &host[open + 1..close];
        let (address, zone) =
            address.split_once("%25").map_or((address, ""), |(address, zone)| (address, zone));
        let is_valid = open == 0 && is_port(&host[close + 1..]) && address.parse::<Ipv6Addr>().is_ok();
        let has_valid_zone = has_good_escapes(zone) && (!host.contains("%25") || !zone.is_empty());
        return (is_valid && has_valid_zone).then(|| address.to_owned());
    }
    let name = match host.rfind(':') {
        Some(colon) if is_port(&host[colon..]) => &host[..colon],
        Some(_) => return None,
        None => host,
    };
    is_host(name).then(|| name.to_owned())
}

/// Whether this is empty, or a colon with any number of digits, even none.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether Go accepts the host. In a host, only non-ASCII bytes and `%25` may be escaped.
fn is_host(name: &str) -> bool {
    let is_plain = |byte: u8| {
        !byte.is_ascii() || byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&byte)
    };
    let escapes = name.match_indices('%').map(|(at, _)| &name.as_bytes()[at..]);
    let mut escapes = escapes.map(|rest| {
        rest.get(1).is_some_and(|digit| b"89abcdefABCDEF".contains(digit)) || rest.starts_with(b"%25")
    });
    name.bytes().all(is_plain) && has_good_escapes(name) && escapes.all(|is_good| is_good)
}

fn has_good_escapes(text: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    text.match_indices('%').all(|(at, _)| is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_like_by_go() {
        let fine = [
            "http://localhost",
            "http://mlflow.mlops.svc:5000",
            "https://mlflow.example/prefix",
            "HTTP://h",
            "http://1.2.3.4.5",
            "http://h:99999/x",
            "http://[::1]:9",
            "http://[::1%25eth0]/",
            "http://xn--/",
            "http://ünï",
            "http://u:p@127.0.0.1",
            "http://h:/",
        ];
        for url in fine {
            assert!(parse(url).is_some_and(|url| url.is_http_with_a_host()), "{url}");
        }
        let others = [
            "",
            "http://",
            "http:",
            "http:opaque",
            "/path",
            "ftp://h",
            "h",
            "127.0.0.1:9",
            "http://a b",
            "http://h/%zz",
            "http://h:x",
            "http://[::1",
            "http://[h]",
            "http://%41",
            "http://a\u{7f}",
            "://h",
            "http://:80",
            "//h",
        ];
        for url in others {
            assert!(!parse(url).is_some_and(|url| url.is_http_with_a_host()), "{url}");
        }
    }
}

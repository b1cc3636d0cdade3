//! By what name the page was asked for.
//!
//! A website can let its own name lead to 127.0.0.1 once a browser has loaded it, and read what
//! is answered there as its own (DNS rebinding). It cannot choose what the browser says in `Host`.
//! So the page, which tells names and processes, is shown under names that no website has.

use std::{fs, net::IpAddr};

use axum::http::{HeaderMap, StatusCode, header};

/// Refuses a name that somebody else could own.
///
/// # Errors
/// What is to be answered then.
pub(super) fn check(headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_ours(host, &hostname()) {
        return Ok(());
    }
    Err((
        StatusCode::MISDIRECTED_REQUEST,
        "the page is shown under an address (http://127.0.0.1:9477/), as localhost, and under \
         this machine's host name; a proxy before it must ask by one of these. /metrics and \
         /healthz are answered under any name\n"
            .to_owned(),
    ))
}

/// `host` with or without a port; none at all is no browser.
fn is_ours(host: &str, hostname: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(&name);
    name.is_empty()
        || address.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || (!hostname.is_empty() && name == hostname.to_ascii_lowercase())
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_the_machines_own_name_are_ours_and_no_other() {
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:9477",
            "[::1]:9477",
            "[fe80::1]",
            "192.0.2.7:80",
            "localhost:9477",
            "LOCALHOST.",
            "a.localhost",
            "vm-7",
            "VM-7:9477",
        ] {
            assert!(is_ours(host, "vm-7"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9477",
            "vm-7.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "::1.evil.example",
            "[::1].evil.example",
            "127.0.0.1@evil.example",
        ] {
            assert!(!is_ours(host, "vm-7"), "{host}");
        }
        assert!(!is_ours("x", ""), "a machine without a name");
    }
}

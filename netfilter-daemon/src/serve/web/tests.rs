use std::net::SocketAddr;

use super::*;
use crate::golden;

const HASH: &str = "$2y$06$Vs9i1h.kGsqWtIQEdZXyYeYHUyTXkZsWEHqMaMzKS0pQjOSXmnS2K";

fn told(text: &str) -> String {
    let mut problems = Problems::new("web.yml");
    let web = read::web(text, Path::new("/nowhere"), &mut problems);
    match problems.finish() {
        Ok(_) => format!(
            "taken: {} users, {} headers\n",
            web.users.len(),
            web.headers.len()
        ),
        Err(error) => format!("{error}\n"),
    }
}

/// Each text and what is said of it, as an operator reads it.
#[test]
fn what_is_wrong_is_told_with_its_place_and_what_would_be_right() {
    let wrong = [
        "basic_auth_user: {}",
        "basic_auth_users: [a]",
        "basic_auth_users: { a: secret }",
        "basic_auth_users: { 'a:b': x }",
        "basic_auth_users: { a: $2y$15$Vs9i1h.kGsqWtIQEdZXyYeYHUyTXkZsWEHqMaMzKS0pQjOSXmnS2K }",
        "basic_auth_users:\n  a: x\n  a: y",
        "http_server_config: { http2: perhaps }",
        "http_server_config: { headers: { Server: x } }",
        "http_server_config: { headers: { X-Frame-Options: \"a\\nb\" } }",
        "tls_server_config: { cert_file: a.pem }",
        "tls_server_config: { cert_file: a.pem, key_file: a.key }",
        "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  min_version: TLS10\n  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n  curve_preferences: [CurveP521]",
        "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  min_version: TLS13\n  max_version: TLS12",
        "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert",
        "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_ca_file: ca.pem",
        "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_auth_type: Sometimes\n  client_allowed_sans: [x]",
        "rate_limit: { burst: 5 }",
        "a: b: c",
        "---\nhttp_server_config: {}\n---\nbasic_auth_users: {}",
    ];
    let all: String = wrong
        .iter()
        .map(|text| format!("{text}\n{}\n", told(text)))
        .collect();
    golden::check("web-errors.txt", &all);
}

#[test]
fn what_exporters_take_is_taken() {
    for (text, taken) in [
        ("", "taken: 0 users, 0 headers\n"),
        ("# nothing\n", "taken: 0 users, 0 headers\n"),
        (
            "http_server_config: { http2: true, headers: { X-Frame-Options: deny } }",
            "taken: 0 users, 1 headers\n",
        ),
    ] {
        assert_eq!(told(text), taken, "{text}");
    }
    let text = format!("basic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n");
    assert_eq!(told(&text), "taken: 2 users, 0 headers\n");
}

#[test]
fn who_listens_to_others_without_protection_is_told_so() {
    let guard = Guard::of(None).unwrap();
    let gap = |address: &str| guard.gap(address.parse::<SocketAddr>().unwrap());
    for own in [
        "127.0.0.1:9477",
        "[::1]:9477",
        "127.9.9.9:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(gap(own), None, "{own}");
    }
    for others in ["0.0.0.0:9477", "[::]:9477", "10.0.0.1:9477"] {
        assert!(
            gap(others)
                .unwrap()
                .contains("without encryption, to whoever asks"),
            "{others}"
        );
    }
}

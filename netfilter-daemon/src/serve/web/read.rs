//! The shapes of the file.

use std::path::Path;

use axum::http::{HeaderName, HeaderValue};

use super::{Web, tls};
use crate::{
    policy::{
        error::{At, Problems},
        fields::{Fields, Shape, choice, list, pairs, text},
        yaml::{self, Node},
    },
    serve::auth::{Hash, MAX_COST, Users},
};

const FILE: Shape = Shape {
    what: "a web configuration",
    example: "tls_server_config: { cert_file: server.pem, key_file: server.key }",
    known: &[
        "tls_server_config",
        "http_server_config",
        "basic_auth_users",
    ],
    ignored: &[],
};

const TLS: Shape = Shape {
    what: "`tls_server_config`",
    example: "{ cert_file: server.pem, key_file: server.key }",
    known: &[
        "cert_file",
        "key_file",
        "client_auth_type",
        "client_ca_file",
        "min_version",
        "max_version",
        "cipher_suites",
        "prefer_server_cipher_suites",
        "curve_preferences",
    ],
    ignored: &[],
};

const HTTP: Shape = Shape {
    what: "`http_server_config`",
    example: "{ headers: { X-Frame-Options: deny } }",
    known: &["http2", "headers"],
    ignored: &[],
};

/// Those that exporters take, too.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

const YES_OR_NO: [(&str, bool); 2] = [("true", true), ("false", false)];

/// Reads what the text says. `directory` is where relative paths begin.
pub(super) fn web(text: &str, directory: &Path, problems: &mut Problems) -> Web {
    let mut web = Web::default();
    let Some(document) = yaml::read(text, problems).filter(|node| !node.is_null()) else {
        return web;
    };
    let Some(fields) = Fields::of(&FILE, &document, problems) else {
        return web;
    };
    if let Some(node) = fields.get("basic_auth_users") {
        web.users = users(node, problems);
    }
    if let Some(node) = fields.get("http_server_config") {
        web.headers = http(node, problems);
    }
    if let Some(node) = fields.get("tls_server_config")
        && let Some(secured) = secured(node, directory, problems)
    {
        web.files = secured.files();
        web.proves = secured.proves();
        web.tls = secured.config(problems);
    }
    web
}

fn users(node: &Node<'_>, problems: &mut Problems) -> Users {
    const SHAPE: Shape = Shape {
        what: "`basic_auth_users`",
        example: "{ prometheus: $2y$10$... }",
        known: &[],
        ignored: &[],
    };
    let mut users = Users::default();
    for (key, node) in pairs(&SHAPE, node, problems).unwrap_or_default() {
        let Some(written) = text(&key.text, node, problems) else {
            continue;
        };
        if key.text.is_empty() || key.text.contains(':') {
            problems.add(
                key.at,
                "a user's name is not empty and has no colon, for that ends it in a request",
            );
            continue;
        }
        match Hash::parse(written) {
            Ok(hash) => users.insert(key.text.clone().into_owned(), hash),
            Err(why) => problems.add(
                node.at,
                format!(
                    "the password of `{}` {why}; make one of cost 10 to {MAX_COST}, with \
                     `htpasswd -nBC 10 \"\"`",
                    key.text
                ),
            ),
        }
    }
    users
}

fn http(node: &Node<'_>, problems: &mut Problems) -> Vec<(HeaderName, HeaderValue)> {
    const SHAPE: Shape = Shape {
        what: "`headers`",
        example: "{ X-Frame-Options: deny }",
        known: &[],
        ignored: &[],
    };
    let mut headers = Vec::new();
    let Some(fields) = Fields::of(&HTTP, node, problems) else {
        return headers;
    };
    // HTTP/1.1 is what is spoken, which every client of a server that may speak 2 does, too.
    if let Some(node) = fields.get("http2") {
        choice("http2", node, &YES_OR_NO, problems);
    }
    let given = fields.get("headers");
    for (key, node) in given
        .and_then(|node| pairs(&SHAPE, node, problems))
        .unwrap_or_default()
    {
        let Some(value) = text(&key.text, node, problems) else {
            continue;
        };
        let known = HEADERS.iter().find(|name| **name == key.text);
        let name = known.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let Some(name) = name else {
            problems.add(
                key.at,
                format!(
                    "the header `{}` cannot be set; {} can",
                    key.text,
                    HEADERS.join(", ")
                ),
            );
            continue;
        };
        match HeaderValue::from_str(value) {
            Ok(value) => headers.push((name, value)),
            Err(_) => problems.add(node.at, "a header's value is one line of visible letters"),
        }
    }
    headers
}

fn secured(node: &Node<'_>, directory: &Path, problems: &mut Problems) -> Option<tls::Secured> {
    let fields = Fields::of(&TLS, node, problems)?;
    let path = |name, node: &Node<'_>, problems: &mut Problems| {
        let written = text(name, node, problems)?;
        Some(tls::File {
            path: directory.join(written),
            at: node.at,
        })
    };
    let certificate = fields.required("cert_file", "server.pem", problems);
    let key = fields.required("key_file", "server.key", problems);
    let certificate = certificate.and_then(|node| path("cert_file", node, problems));
    let key = key.and_then(|node| path("key_file", node, problems));
    let authorities = fields.get("client_ca_file");
    let authorities = authorities.and_then(|node| path("client_ca_file", node, problems));
    let clients = fields
        .get("client_auth_type")
        .and_then(|node| choice("client_auth_type", node, &tls::CLIENTS, problems))
        .unwrap_or(tls::Clients::Unasked);
    let mut version = |name| {
        let node = fields.get(name)?;
        choice(name, node, &tls::VERSIONS, problems).map(|version| (version, node.at))
    };
    let (oldest, newest) = (version("min_version"), version("max_version"));
    let mut names = |name: &'static str| -> Vec<(String, At)> {
        let node = fields.get(name);
        let items = node.map_or(&[][..], |node| list(name, node, problems));
        let items = items.iter().filter_map(|item| {
            let written = text(name, item, problems)?;
            Some((written.to_owned(), item.at))
        });
        items.collect()
    };
    let (suites, curves) = (names("cipher_suites"), names("curve_preferences"));
    let prefer_ours = fields
        .get("prefer_server_cipher_suites")
        .and_then(|node| choice("prefer_server_cipher_suites", node, &YES_OR_NO, problems))
        .unwrap_or(true);
    Some(tls::Secured {
        certificate: certificate?,
        key: key?,
        clients,
        authorities,
        oldest,
        newest,
        suites,
        curves,
        prefer_ours,
        at: fields.at(),
    })
}

//! What an operator reads, kept in `tests/golden/policy-*.txt`: each case is a policy
//! and what is made of it. `UPDATE_GOLDEN=1` writes what is made of it now; read the
//! difference before you keep it.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use super::service_tag::Catalogue;
use super::{Destination, Error, Policy, System, parse, service_tag};

/// Begins a case, and is followed by its title.
const CASE: &str = "=== ";
/// Parts the policy from what is made of it.
const RESULT: &str = "---->\n";

#[test]
fn every_mistake_has_a_message_that_one_can_act_on() {
    compare("policy-errors.txt", |text| match read(text) {
        Err(error) => format!("{error}\n"),
        Ok(policy) => format!("taken, which it must not be\n{}", summary(&policy)),
    });
}

#[test]
fn every_form_of_a_policy_is_taken() {
    compare("policy-taken.txt", |text| match read(text) {
        Ok(policy) => summary(&policy),
        Err(error) => format!("refused, which it must not be\n{error}\n"),
    });
}

fn read(text: &str) -> Result<Policy, Error> {
    let system = System {
        users: vec![("root".to_owned(), 0), ("alice".to_owned(), 1001)],
        connected: vec!["10.0.0.0/24".parse().unwrap()],
        resolvers: vec!["168.63.129.16".parse().unwrap()],
    };
    parse(&spelled_out(text), "policy.yaml", &system, &tags)
}

/// The lists that the cases can name.
fn tags(path: &str) -> Result<Catalogue, service_tag::Error> {
    let source = path;
    let path = match path.rsplit_once('/') {
        Some((_, "none.json")) => {
            let url = path.to_owned();
            return Err(service_tag::Error::NotFetched { url });
        }
        // Two lists of one cloud are enough.
        Some((_, page)) if page.contains('?') => "service-tags-public.json",
        Some((_, file)) => file,
        None => path,
    };
    let json = match path {
        "page.json" => "<!DOCTYPE html>".to_owned(),
        "cut.json" => r#"{"changeNumber": 1, "values": [{"name": "A", "#.to_owned(),
        "other.json" => r#"{"openapi": "3.1"}"#.to_owned(),
        "empty.json" => r#"{"changeNumber": 1, "values": []}"#.to_owned(),
        "bad.json" => {
            r#"{"values": [{"name": "A", "properties": {"addressPrefixes": ["10.0.0/8"]}}]}"#
                .to_owned()
        }
        path => fs::read_to_string(root().join("corpus").join(path)).unwrap(),
    };
    Catalogue::parse(&json, source)
}

/// `<300 times a>` in a case is 300 letters.
fn spelled_out(text: &str) -> String {
    let mut parts = text.split(" times ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (count, letters) = (out.rfind('<').unwrap(), part.find('>').unwrap());
        let times: usize = out[count + 1..].parse().unwrap();
        out.truncate(count);
        out.push_str(&part[..letters].repeat(times));
        out.push_str(&part[letters + 1..]);
    }
    out
}

fn summary(policy: &Policy) -> String {
    let mut out = String::new();
    let resolvers = policy.resolvers.iter().map(ToString::to_string);
    let inbound = policy.inbound.iter().map(ToString::to_string);
    let network = policy.virtual_network.iter().map(ToString::to_string);
    let dns = &policy.dns;
    writeln!(
        out,
        "{:?}, on_deny {:?}, interfaces {}, resolvers [{}], inbound [{}]\n\
         virtual network [{}], dns {:?} ttl {} + {}, reverse {}, wildcards {} bytes {:?}/min,\n\
         types {:?}, tags {} of {:?}",
        policy.mode,
        policy.on_deny,
        policy
            .interfaces
            .as_ref()
            .map_or("auto".to_owned(), |names| names.join(" "))
            + &policy
                .workloads
                .iter()
                .map(|name| format!(" workload:{name}"))
                .collect::<String>(),
        resolvers.collect::<Vec<_>>().join(" "),
        inbound.collect::<Vec<_>>().join("; "),
        network.collect::<Vec<_>>().join(" "),
        dns.on_deny,
        dns.minimum_ttl,
        dns.grace,
        dns.private_reverse,
        dns.wildcard_length,
        dns.wildcard_rate,
        dns.query_types,
        policy.catalogue.source,
        policy.catalogue.date,
    )
    .unwrap();
    if !policy.bypass_users.is_empty() {
        writeln!(out, "sockets may pass by of {:?}", policy.bypass_users).unwrap();
    }
    for rule in &policy.rules {
        let traffic: Vec<String> = rule.traffic.iter().map(ToString::to_string).collect();
        let destination = match &rule.destination {
            Destination::Tag { tag, prefixes } => {
                format!("tag {tag} ({} prefixes)", prefixes.len())
            }
            Destination::Prefixes(prefixes) => {
                let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                prefixes.join(" ")
            }
            Destination::Name(pattern) => format!("name {pattern}"),
        };
        let traffic = traffic.join("; ");
        writeln!(
            out,
            "{}: {:?} {destination}, {traffic}",
            rule.name, rule.action
        )
        .unwrap();
    }
    for note in &policy.remarks.notes {
        writeln!(out, "note {note}").unwrap();
    }
    out
}

fn compare(file: &str, make: impl Fn(&str) -> String) {
    let path = root().join("golden").join(file);
    let golden = fs::read_to_string(&path).unwrap();
    let (head, cases) = golden.split_once(CASE).unwrap();
    let mut made = head.to_owned();
    for case in cases.split(&format!("\n{CASE}")) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (policy, _) = rest.split_once(RESULT).unwrap_or((rest, ""));
        let policy = format!("{}\n", policy.trim_end_matches('\n'));
        let policy = policy.trim_start_matches('\n');
        write!(made, "{CASE}{title}\n{policy}{RESULT}{}\n", make(policy)).unwrap();
    }
    let made = format!("{}\n", made.trim_end());
    crate::golden::check(file, &made);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

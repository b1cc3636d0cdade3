//! A suggestion as a policy file: the one in use, with rules added.
//!
//! Names, processes and users are text that others choose. Of it nothing is written but what
//! `scalar` quotes, and comments of one line, without what ends a line.

use std::net::IpAddr;

use super::{Addition, Left, Suggestion};
use crate::{
    daemon::audit::Audit,
    moment,
    policy::{
        Destination, Policy, Ports, Protocol, QueryTypes, Traffic,
        extend::{self, Extension},
        query_type, scalar,
    },
};

/// Columns of a comment.
const WIDTH: usize = 96;
/// Characters of what others choose.
const LONGEST: usize = 800;
/// Networks that stand in one line.
const IN_A_LINE: usize = 3;
/// Begins the lines that say what a file is.
const ABOUT: &str = "# suggest: ";

/// The text of a policy file. `read` reads one, if it is right: what is written is
/// taken only if it says what it shall. `None` where it would not.
pub fn policy(
    text: &str,
    in_force: &Policy,
    audit: &Audit,
    suggestion: &Suggestion,
    read: impl Fn(&str) -> Option<Policy>,
) -> Option<String> {
    let bare: String = text
        .lines()
        .filter(|line| !line.starts_with(ABOUT))
        .flat_map(|line| [line, "\n"])
        .collect();
    let extension = Extension {
        rules: suggestion.additions.iter().map(rule).collect(),
        remarks: remarks(&bare, suggestion),
        query_types: (!suggestion.query_types.is_empty()).then(|| types(in_force, suggestion)),
    };
    let about = about(audit, suggestion);
    let wanted =
        |written: &String| read(written).is_some_and(|policy| says(&policy, in_force, suggestion));
    let whole = |text: &str, extension: &Extension| {
        Some(about.clone() + &extend::extended(text, extension)?)
    };
    whole(&bare, &extension).filter(wanted).or_else(|| {
        let types = extension.query_types.as_deref();
        let anew = extend::rewritten(&bare, types)?;
        let rest = Extension {
            query_types: None,
            ..extension.clone()
        };
        whole(&anew, &rest).filter(wanted)
    })
}

/// Whether a policy is the one in force with what is added, and nothing else.
fn says(policy: &Policy, in_force: &Policy, suggestion: &Suggestion) -> bool {
    let mut expected = in_force.clone();
    expected.mode = crate::policy::Mode::Enforce;
    expected
        .rules
        .extend(suggestion.additions.iter().map(Addition::rule));
    if let QueryTypes::Only(types) = &mut expected.dns.query_types {
        types.extend(&suggestion.query_types);
        types.sort_unstable();
    }
    let mut policy = policy.clone();
    if let QueryTypes::Only(types) = &mut policy.dns.query_types {
        types.sort_unstable();
    }
    expected.remarks = policy.remarks.clone();
    policy == expected
}

fn types(policy: &Policy, suggestion: &Suggestion) -> Vec<String> {
    let listed = match &policy.dns.query_types {
        QueryTypes::Any => &[][..],
        QueryTypes::Only(types) => types,
    };
    let all = listed.iter().chain(&suggestion.query_types);
    all.map(|&number| query_type::written(number)).collect()
}

/// What stands in front.
fn about(audit: &Audit, suggestion: &Suggestion) -> String {
    let Suggestion {
        additions,
        query_types,
        left,
        seen,
    } = suggestion;
    let counted = |count: usize, one: &str, many: &str| match count {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let mut lines = vec![match seen {
        Some((first, last)) => format!(
            "what audit let pass from {} to {}",
            moment::utc(*first),
            moment::utc(*last)
        ),
        None => "audit let nothing pass that no rule allows".to_owned(),
    }];
    let mut added = counted(additions.len(), "rule is added", "rules are added");
    if !left.is_empty() {
        let things = counted(left.len(), "thing is left out", "things are left out");
        added.push_str(&format!("; {things}, in comments, for you to decide"));
    }
    lines.push(added);
    if !query_types.is_empty() {
        let types: Vec<String> = query_types
            .iter()
            .map(|&it| query_type::written(it))
            .collect();
        lines.push(format!(
            "`query_types` takes in {}, which was asked for: free text can come back so",
            types.join(", ")
        ));
    }
    if audit.lost > 0 {
        lines.push(format!(
            "INCOMPLETE: {} packets or questions found no room to be remembered; put this into \
             force in audit, `suggest --forget`, and look again",
            audit.lost
        ));
    }
    for (reason, packets) in &audit.others {
        let packets = counted(
            usize::try_from(*packets).unwrap_or(usize::MAX),
            "packet",
            "packets",
        );
        lines.push(format!(
            "no rule can let out {packets} that audit let pass as `{reason}`"
        ));
    }
    let lines = lines.iter().flat_map(|line| wrapped(&plain(line), ABOUT));
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// A rule with its comments.
fn rule(addition: &Addition) -> String {
    let Addition {
        name,
        destination,
        traffic,
        used,
        remarks,
    } = addition;
    let mut text = comment(&used.to_string());
    for remark in remarks {
        text.push_str(&comment(remark));
    }
    let (kind, destination) = self::destination(destination, traffic);
    text.push_str(&format!(
        "- name: {}\n  type: {kind}\n  {destination}\n",
        scalar(name)
    ));
    text
}

/// The kind of a rule, and the lines of its destination.
fn destination(destination: &Destination, traffic: &Traffic) -> (&'static str, String) {
    let (kind, key, value) = match destination {
        Destination::Name(pattern) if *traffic == Traffic::tcp([80, 443]) => {
            return (
                "fqdn",
                format!("destination: {}", scalar(&pattern.to_string())),
            );
        }
        Destination::Name(pattern) => ("fqdn", "fqdn", scalar(&pattern.to_string()).into_owned()),
        Destination::Tag { tag, .. } => ("service_tag", "service_tag", scalar(tag).into_owned()),
        Destination::Prefixes(prefixes) => {
            let each: Vec<String> = prefixes
                .iter()
                .map(|prefix| scalar(&prefix.to_string()).into_owned())
                .collect();
            if each.len() > IN_A_LINE {
                let lines = each.join("\n      - ");
                return (
                    "ip",
                    format!(
                        "destination:\n    {}\n    cidr:\n      - {lines}",
                        of_traffic(traffic).join("\n    ")
                    ),
                );
            }
            let value = match each.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            ("ip", "cidr", value)
        }
    };
    let said = of_traffic(traffic).join(", ");
    (kind, format!("destination: {{ {key}: {value}, {said} }}"))
}

fn of_traffic(traffic: &Traffic) -> [String; 2] {
    let protocol = match traffic.protocol() {
        Protocol::Any => "\"*\"".to_owned(),
        Protocol::Tcp => "TCP".to_owned(),
        Protocol::Udp => "UDP".to_owned(),
        Protocol::Icmp => "ICMP".to_owned(),
        Protocol::Number(number) => format!("\"{number}\""),
    };
    let ports = match traffic.ports() {
        Ports::All => "*".to_owned(),
        ports => ports.to_string(),
    };
    [
        format!("protocol: {protocol}"),
        format!("port_ranges: \"{ports}\""),
    ]
}

/// What is left, in comments, but for what such a comment in the file says already.
fn remarks(text: &str, suggestion: &Suggestion) -> Vec<String> {
    let mut remarks = Vec::new();
    for left in &suggestion.left {
        let told = left_out(left);
        let first = told.lines().next().unwrap_or_default();
        if !text.lines().any(|line| line.trim() == first) {
            remarks.push(told);
        }
    }
    remarks
}

fn left_out(left: &Left) -> String {
    let Left {
        why,
        used,
        rules,
        inbound,
        flows,
        names,
    } = left;
    let mut text = comment(&format!("Left out: {why}"));
    let about = match (names.as_slice(), flows.as_slice()) {
        ([], []) => String::new(),
        ([], flows) if rules.is_empty() => format!(
            "{}; ",
            listed(
                flows
                    .iter()
                    .map(|(address, (protocol, port))| told(*address, *protocol, *port))
            )
        ),
        ([], _) => String::new(),
        // They are in the reason already.
        (names, _) if names.iter().any(|name| why.contains(name.as_str())) => String::new(),
        (names, _) => format!("{}; ", listed(names.iter().cloned())),
    };
    text.push_str(&comment(&format!("{about}{used}")));
    let mut written = rules.iter().map(|addition| {
        let Addition {
            name,
            destination,
            traffic,
            ..
        } = addition;
        let (kind, destination) = self::destination(destination, traffic);
        format!(
            "- name: {}\n  type: {kind}\n  {destination}\n",
            scalar(name)
        )
    });
    let written: String = written.by_ref().collect();
    for line in written.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    if let Some(inbound) = inbound {
        let [protocol, ports] = of_traffic(inbound);
        text.push_str(&format!("# under `inbound`: - {{ {protocol}, {ports} }}\n"));
    }
    text
}

/// `192.0.2.1 TCP 443`
pub fn told(address: IpAddr, protocol: u8, port: u16) -> String {
    match protocol {
        6 => format!("{address} TCP {port}"),
        17 => format!("{address} UDP {port}"),
        1 | 58 => format!("{address} ICMP"),
        number => format!("{address} protocol {number}"),
    }
}

/// The first few.
fn listed(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 4;
    let count = items.len();
    let mut shown: Vec<String> = items.take(SHOWN).collect();
    if count > SHOWN {
        shown.push(format!("{} more", count - SHOWN));
    }
    shown.join(", ")
}

/// Nothing for nothing.
fn comment(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => wrapped(&plain(text), "# ")
            .flat_map(|line| [line, "\n".to_owned()])
            .collect(),
    }
}

/// Without what ends a line, or writes over it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars().take(LONGEST) {
        match letter {
            ' '..='~' => plain.push(letter),
            _ if letter.is_alphanumeric() => plain.push(letter),
            _ => plain.extend(letter.escape_unicode()),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        plain.push_str("...");
    }
    plain
}

fn wrapped(text: &str, begin: &str) -> std::vec::IntoIter<String> {
    let mut lines = Vec::new();
    let mut line = begin.trim_end().to_owned();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let room = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if !room && line.len() > begin.trim_end().len() {
            lines.push(std::mem::replace(&mut line, begin.trim_end().to_owned()));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
    lines.into_iter()
}

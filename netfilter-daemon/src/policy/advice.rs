//! Rules that look safe and are not: through which data can leave to whoever rents a
//! place there, and which do nothing without another one.

use ipnet::IpNet;

use super::{Action, Destination, Pattern, Rule};

mod places;

use places::{HOSTS, NEEDS, Need, SUFFIXES, TAGS};

/// Networks wider than this hold more than anybody approves of knowingly.
const WIDEST_IPV4: u8 = 8;
const WIDEST_IPV6: u8 = 16;
const DNS: u16 = 53;

/// What is risky about a rule, and the remedy.
pub(crate) fn on(rule: &Rule) -> Option<String> {
    if rule.action != Action::Allow {
        return None;
    }
    match &rule.destination {
        Destination::Tag { tag, .. } => on_tag(tag),
        Destination::Prefixes(prefixes) => {
            on_width(prefixes).or_else(|| on_foreign_dns(rule, prefixes))
        }
        Destination::Name(pattern) if pattern.is_wildcard() => on_wildcard(pattern),
        Destination::Name(pattern) => on_host(pattern),
    }
}

/// For each rule that needs another one, which the policy lacks: its place in `rules`, and
/// what it needs.
pub(crate) fn missing(rules: &[Rule]) -> Vec<(usize, String)> {
    let allowed = || rules.iter().filter(|rule| rule.action == Action::Allow);
    let lacks = |needs: &[&str]| {
        !allowed().any(|rule| needs.iter().any(|need| grants(&rule.destination, need)))
    };
    let needy = rules.iter().enumerate().filter_map(|(index, rule)| {
        if rule.action != Action::Allow {
            return None;
        }
        let need = need(&rule.destination)?;
        let Need { of, any, why } = need;
        lacks(any).then(|| (index, format!("{of} {why}; allow also {}", any[0])))
    });
    needy.collect()
}

fn on_tag(tag: &str) -> Option<String> {
    let (_, risk) = TAGS.iter().find(|(family, _)| is_tag(tag, family))?;
    Some(format!("the service tag {tag} is {risk}"))
}

fn on_width(prefixes: &[IpNet]) -> Option<String> {
    let wide = prefixes.iter().find(|prefix| {
        let widest = match prefix {
            IpNet::V4(_) => WIDEST_IPV4,
            IpNet::V6(_) => WIDEST_IPV6,
        };
        prefix.prefix_len() < widest && !is_nobodys(prefix)
    })?;
    let what = if wide.prefix_len() == 0 {
        "every address there is".to_owned()
    } else {
        format!(
            "one in {} of all addresses",
            1_u64 << wide.prefix_len().min(63)
        )
    };
    Some(format!(
        "{wide} is {what}, and some of them are an attacker's; name what is needed, as `run \
         --audit` and `events` show it"
    ))
}

/// Multicast, link-local and unique local addresses: nothing that can be rented.
fn is_nobodys(prefix: &IpNet) -> bool {
    const NETWORKS: [&str; 3] = ["224.0.0.0/4", "fc00::/7", "ff00::/8"];
    let within = |network: &str| network.parse::<IpNet>().is_ok_and(|it| it.contains(prefix));
    NETWORKS.into_iter().any(within)
}

/// Whoever may ask a resolver that the filter does not read can ask for any name.
fn on_foreign_dns(rule: &Rule, prefixes: &[IpNet]) -> Option<String> {
    let to_dns = rule.traffic.iter().any(|traffic| match traffic.ports() {
        super::Ports::All => false,
        super::Ports::Ranges(ranges) => ranges
            .iter()
            .any(|range| range.contains(&DNS) && range.start() == range.end()),
    });
    let first = prefixes.first().filter(|_| to_dns)?;
    Some(format!(
        "questions to a DNS server that is not among the `resolvers` are not read, so that any \
         data can leave in names; write `resolvers: [{}]` in place of this rule",
        first.addr()
    ))
}

fn on_wildcard(pattern: &Pattern) -> Option<String> {
    let written = pattern.to_string();
    let parent = written.strip_prefix("*.")?;
    // What is below a name that somebody has rented is his.
    let rented = SUFFIXES
        .iter()
        .find(|(suffix, _)| is_at_or_below(suffix, parent));
    if let Some((suffix, remedy)) = rented {
        let also = if *suffix == parent {
            String::new()
        } else {
            format!(", such as those below {suffix}")
        };
        return Some(format!(
            "{written} is also what others rent{also}: an attacker needs no more than an \
             account; {remedy}"
        ));
    }
    let below = format!("a.{parent}");
    let registered = psl::suffix(below.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == parent.as_bytes());
    registered.then(|| {
        format!(
            "anybody can have a name below {parent} (publicsuffix.org), and what is asked for \
             there is told to its owner; write the names that are needed, such as \
             *.example.{parent}"
        )
    })
}

fn on_host(pattern: &Pattern) -> Option<String> {
    let written = pattern.to_string();
    let (_, risk) = HOSTS.iter().find(|(host, _)| *host == written)?;
    Some(format!("{written} takes {risk}"))
}

/// `name` is `suffix` or ends in `.suffix`.
fn is_at_or_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The tag, or one of its regions. Letter case is free.
fn is_tag(tag: &str, family: &str) -> bool {
    let begins = tag.get(..family.len());
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(family))
        && matches!(tag.as_bytes().get(family.len()), None | Some(b'.'))
}

/// What the destination needs: of a tag, or of a name.
fn need(destination: &Destination) -> Option<&'static Need> {
    match destination {
        Destination::Tag { tag, .. } => NEEDS.iter().find(|need| is_tag(tag, need.of)),
        Destination::Name(pattern) => {
            let written = pattern.to_string();
            NEEDS.iter().find(|need| match need.of.strip_prefix("*.") {
                // A name below it, or the wildcard.
                Some(parent) => is_at_or_below(&written, parent),
                None => written == need.of,
            })
        }
        Destination::Prefixes(_) => None,
    }
}

fn grants(destination: &Destination, needed: &str) -> bool {
    match destination {
        Destination::Tag { tag, .. } => is_tag(needed, tag),
        Destination::Name(pattern) => {
            let written = pattern.to_string();
            let parent = |name| str::strip_prefix(name, "*.");
            match (parent(&written), parent(needed)) {
                (Some(wide), Some(narrow)) => is_at_or_below(narrow, wide),
                // One name where any of a zone would do.
                (None, Some(zone)) => is_at_or_below(&written, zone),
                (Some(wide), None) => is_at_or_below(needed, wide) && needed != wide,
                (None, None) => written == needed,
            }
        }
        Destination::Prefixes(_) => false,
    }
}

#[cfg(test)]
mod tests;

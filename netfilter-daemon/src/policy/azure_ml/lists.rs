//! `service_tags`: the lists, how often they are looked at, and what a policy should
//! allow so that they can be fetched.

use std::time::Duration;

use crate::policy::error::{At, Problems};
use crate::policy::fields::{Fields, Shape, text};
use crate::policy::service_tag::lists::{EVERY, Lists, Source, host};
use crate::policy::service_tag::{self, BUILT_IN_NAME, Catalogue, page};
use crate::policy::yaml::{Node, Value};
use crate::policy::{Action, Destination, Pattern, Rule};

const MINUTE: u64 = 60;
/// More often is a burden to who publishes them, and GitHub answers 60 times an hour.
const EVERY_MIN: u64 = 5 * MINUTE;
const EVERY_MAX: u64 = 365 * 24 * 60 * MINUTE;
const TCP: u8 = 6;

const SHAPE: Shape = Shape {
    what: "`service_tags`",
    example: "service_tags: { from: [https://ip-ranges.amazonaws.com/ip-ranges.json], every: 24h }",
    known: &["from", "every", "ca"],
    ignored: &[],
};

/// The lists, with the place of each.
pub(super) struct Written {
    pub(super) lists: Lists,
    at: Vec<At>,
}

/// `None` where what is written makes no sense, which is reported then.
pub(super) fn read(settings: &Fields<'_, '_>, problems: &mut Problems) -> Option<Written> {
    let Some(node) = settings.get("service_tags") else {
        let lists = Lists::default();
        let at = vec![settings.at()];
        return Some(Written { lists, at });
    };
    let fields = match &node.value {
        Value::Mapping(_) => Some(Fields::of(&SHAPE, node, problems)?),
        Value::Scalar { .. } | Value::List(_) => None,
    };
    let from = match &fields {
        Some(fields) => fields.required("from", "[./ServiceTags_Public.json]", problems)?,
        None => node,
    };
    let written = match &from.value {
        Value::List(items) => items.as_slice(),
        Value::Scalar { .. } | Value::Mapping(_) => std::slice::from_ref(from),
    };
    let mut lists = Lists {
        from: Vec::new(),
        every: EVERY,
        ca: None,
    };
    let mut at = Vec::new();
    for item in written {
        match Source::parse(text("service_tags", item, problems)?) {
            Ok(source) if lists.from.contains(&source) => {
                let written = source.as_str();
                problems.add(
                    item.at,
                    format!("`service_tags` names {written} twice; remove one"),
                );
                return None;
            }
            Ok(source) => {
                lists.from.push(source);
                at.push(item.at);
            }
            Err(problem) => {
                problems.add(item.at, problem);
                return None;
            }
        }
    }
    if lists.from.is_empty() {
        problems.add(
            from.at,
            "`service_tags` names no list; name a file, or leave the key out for the built-in one",
        );
        return None;
    }
    if let Some(fields) = fields {
        if let Some(node) = fields.get("every") {
            lists.every = every(node, problems)?;
        }
        if let Some(node) = fields.get("ca") {
            lists.ca = Some(text("ca", node, problems)?.to_owned());
        }
    }
    Some(Written { lists, at })
}

impl Written {
    /// All lists as one; `None` where one cannot be read.
    pub(super) fn catalogue(
        &self,
        read_tags: &dyn Fn(&str) -> Result<Catalogue, service_tag::Error>,
        problems: &mut Problems,
    ) -> Option<Catalogue> {
        let mut whole: Option<Catalogue> = None;
        for (source, at) in self.lists.from.iter().zip(&self.at) {
            let part = match source.as_str() {
                BUILT_IN_NAME => Catalogue::built_in(),
                written => read_tags(written),
            };
            let part = part.inspect_err(|error| problems.add(*at, error)).ok()?;
            whole = Some(match whole {
                Some(whole) => whole.merge(part),
                None => part,
            });
        }
        whole
    }

    /// The daemon's own packets are judged like everybody's.
    pub(super) fn note_what_cannot_be_fetched(&self, rules: &[Rule], problems: &mut Problems) {
        for (source, at) in self.lists.from.iter().zip(&self.at) {
            let Source::Url(url) = source else { continue };
            let (host, port) = host(url);
            let further = page::links_to(url).map(|host| (host, 443));
            for (host, port) in [(host, port)].into_iter().chain(further) {
                if allowed(rules, host, port) {
                    continue;
                }
                problems.note(
                    *at,
                    format!(
                        "no rule allows the name {host} with TCP port {port}, so while the filter \
                         is in force the daemon may not be able to refresh this list; add \
                         `{{ name: tags-{host}, type: fqdn, destination: {{ fqdn: {host}, \
                         protocol: TCP, port_ranges: \"{port}\" }} }}`"
                    ),
                );
            }
        }
    }
}

/// By name. Whether another rule allows its addresses is not known here; for a
/// list at an address, only that is asked.
fn allowed(rules: &[Rule], host: &str, port: u16) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let name = host.parse::<Pattern>().ok();
    let concerns = |destination: &Destination| match (destination, &address) {
        (Destination::Name(pattern), Err(_)) => name
            .as_ref()
            .is_some_and(|name| pattern.matches(name.wire())),
        (Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes), Ok(address)) => {
            prefixes.iter().any(|prefix| prefix.contains(address))
        }
        _ => false,
    };
    let mut concerned = rules.iter().filter(|rule| {
        let traffic = &rule.traffic;
        concerns(&rule.destination) && traffic.iter().any(|each| each.covers(TCP, Some(port)))
    });
    let denied = concerned.clone().any(|rule| rule.action == Action::Deny);
    !denied && concerned.next().is_some()
}

fn every(node: &Node<'_>, problems: &mut Problems) -> Option<Duration> {
    let written = text("every", node, problems)?;
    let seconds = seconds(written).filter(|seconds| (EVERY_MIN..=EVERY_MAX).contains(seconds));
    if seconds.is_none() {
        problems.add(
            node.at,
            format!(
                "`every` cannot be `{written}`; it is a time from 5m to 365d, such as 90m, 24h or 7d"
            ),
        );
    }
    seconds.map(Duration::from_secs)
}

/// A number, and a unit.
fn seconds(written: &str) -> Option<u64> {
    let unit = match written.chars().last()? {
        's' => 1,
        'm' => MINUTE,
        'h' => 60 * MINUTE,
        'd' => 24 * 60 * MINUTE,
        _ => return None,
    };
    let number = written[..written.len() - 1].trim_end();
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number
        .parse::<u64>()
        .ok()
        .filter(|_| digits)?
        .checked_mul(unit)
}

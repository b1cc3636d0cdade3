//! `DEST[:PORT]`, as typed and as meant.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::policy::{Pattern, Policy, Ports, Protocol, name, ports};

/// Of a configured resolver; rules need not name it.
pub(super) const DNS: u16 = 53;

/// A destination, and the traffic to it that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub target: Target,
    /// `None`: every one.
    pub protocol: Option<Protocol>,
    /// `None`: every one, or none where the protocol has none.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Address(IpAddr),
    /// Never a wildcard.
    Name(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no port; ports go from 0 to 65535")]
    Port(String),
    #[error(
        "`{0}` begins with [ but is no IPv6 address in brackets; write for instance [2001:db8::1]:443"
    )]
    Brackets(String),
    #[error("`{0}` is a pattern; explain answers for one name, such as {1}")]
    Wildcard(String, String),
    #[error(transparent)]
    Name(#[from] name::Error),
    #[error(transparent)]
    Protocol(#[from] ports::Error),
    #[error(
        "* stands for every protocol; leave --protocol and the port out to see all that is allowed"
    )]
    AnyProtocol,
    #[error("{0} has no ports; leave the port out")]
    Portless(Protocol),
    #[error("`{0}` is an address; --resolve asks for a name, so leave it out")]
    Resolved(IpAddr),
}

impl Question {
    /// With a port, the protocol is TCP unless another is named.
    pub fn parse(destination: &str, protocol: Option<&str>) -> Result<Self, Error> {
        let (target, port) = destination_and_port(destination.trim())?;
        let protocol = match (protocol, port) {
            (Some(protocol), _) => Some(Protocol::parse(protocol)?),
            (None, Some(_)) => Some(Protocol::Tcp),
            (None, None) => None,
        };
        match protocol {
            Some(Protocol::Any) => Err(Error::AnyProtocol),
            Some(portless) if port.is_some() && !portless.has_ports() => {
                Err(Error::Portless(portless))
            }
            protocol => Ok(Self {
                target,
                protocol,
                port,
            }),
        }
    }

    /// What --resolve asks for.
    ///
    /// # Errors
    /// Where it is about an address.
    pub fn name(&self) -> Result<&Pattern, Error> {
        match &self.target {
            Target::Name(name) => Ok(name),
            Target::Address(address) => Err(Error::Resolved(*address)),
        }
    }

    /// Protocol and port of every packet that the policy could judge
    /// differently from the others that are asked about.
    pub(super) fn probes(&self, policy: &Policy) -> Vec<(u8, u16)> {
        let icmp = match self.target {
            Target::Address(IpAddr::V4(_)) => 1,
            _ => 58,
        };
        let protocols: BTreeSet<u8> = match self.protocol {
            Some(Protocol::Tcp) => [6].into(),
            Some(Protocol::Udp) => [17].into(),
            Some(Protocol::Icmp) => [icmp].into(),
            Some(Protocol::Number(number)) => [number].into(),
            Some(Protocol::Any) | None => every_protocol(policy, icmp),
        };
        let ports = match self.port {
            Some(port) => [port].into(),
            None => every_port(policy),
        };
        let has_ports = |protocol: u8| protocol == 6 || protocol == 17;
        let portless = protocols
            .iter()
            .filter(|number| !has_ports(**number))
            .map(|number| (*number, 0));
        let with_ports = protocols.iter().filter(|number| has_ports(**number));
        let with_ports = with_ports.flat_map(|number| ports.iter().map(|port| (*number, *port)));
        with_ports.chain(portless).collect()
    }
}

/// Those that rules name, and one that none does.
fn every_protocol(policy: &Policy, icmp: u8) -> BTreeSet<u8> {
    let mut named: BTreeSet<u8> = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.traffic)
        .flat_map(|traffic| {
            traffic
                .parts()
                .filter_map(|(number, _)| number)
                .collect::<Vec<_>>()
        })
        .chain([6, 17, icmp])
        .collect();
    named.extend((0..=u8::MAX).rev().find(|number| !named.contains(number)));
    named
}

/// Where a range begins, and just past its end: between two of these nothing
/// changes. A resolver answers for itself at its own port.
fn every_port(policy: &Policy) -> BTreeSet<u16> {
    let ranges = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.traffic)
        .filter_map(|traffic| match traffic.ports() {
            Ports::All => None,
            Ports::Ranges(ranges) => Some(ranges),
        });
    let borders = ranges
        .flatten()
        .flat_map(|range| [Some(*range.start()), range.end().checked_add(1)]);
    borders.flatten().chain([0, DNS, DNS + 1]).collect()
}

fn destination_and_port(text: &str) -> Result<(Target, Option<u16>), Error> {
    if let Ok(address) = text.parse() {
        return Ok((Target::Address(address), None));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let wrong = || Error::Brackets(text.to_owned());
        let (address, rest) = bracketed.split_once(']').ok_or_else(wrong)?;
        let address = address.parse().map(IpAddr::V6).or(Err(wrong()))?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if rest.is_empty() => None,
            None => return Err(wrong()),
        };
        return Ok((Target::Address(address), port));
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if !text.contains('/') => Ok((target(host)?, Some(port(digits)?))),
        _ => Ok((target(text)?, None)),
    }
}

fn target(host: &str) -> Result<Target, Error> {
    if let Ok(address) = host.parse() {
        return Ok(Target::Address(address));
    }
    let pattern: Pattern = host.parse()?;
    if pattern.is_wildcard() {
        let example = pattern.to_string().replacen('*', "www", 1);
        return Err(Error::Wildcard(pattern.to_string(), example));
    }
    Ok(Target::Name(pattern))
}

fn port(digits: &str) -> Result<u16, Error> {
    let number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok());
    number
        .flatten()
        .ok_or_else(|| Error::Port(digits.to_owned()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(destination: &str) -> (String, Option<Protocol>, Option<u16>) {
        let question = Question::parse(destination, None).unwrap();
        (
            question.target.to_string(),
            question.protocol,
            question.port,
        )
    }

    fn wrong(destination: &str, protocol: Option<&str>) -> String {
        Question::parse(destination, protocol)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_destination_is_an_address_or_a_name_with_or_without_port() {
        let tcp = Some(Protocol::Tcp);
        let cases = [
            ("192.0.2.1", ("192.0.2.1", None, None)),
            ("192.0.2.1:443", ("192.0.2.1", tcp, Some(443))),
            ("2001:db8::1", ("2001:db8::1", None, None)),
            ("2001:db8::443", ("2001:db8::443", None, None)),
            ("[2001:db8::1]", ("2001:db8::1", None, None)),
            ("[2001:db8::1]:443", ("2001:db8::1", tcp, Some(443))),
            ("PyPI.org", ("pypi.org", None, None)),
            ("pypi.org.:443", ("pypi.org", tcp, Some(443))),
            (
                "bücher.example:80",
                ("xn--bcher-kva.example", tcp, Some(80)),
            ),
        ];
        for (typed, (target, protocol, port)) in cases {
            assert_eq!(
                parsed(typed),
                (target.to_owned(), protocol, port),
                "{typed}"
            );
        }
    }

    #[test]
    fn the_protocol_is_tcp_only_where_a_port_and_no_other_protocol_is_given() {
        let protocol =
            |destination, protocol| Question::parse(destination, protocol).unwrap().protocol;
        assert_eq!(protocol("192.0.2.1:53", Some("udp")), Some(Protocol::Udp));
        assert_eq!(protocol("192.0.2.1", Some("icmp")), Some(Protocol::Icmp));
        assert_eq!(protocol("192.0.2.1", None), None);
    }

    #[test]
    fn what_is_no_destination_is_answered_with_what_would_be_one() {
        assert_eq!(
            wrong("192.0.2.1:https", None),
            "`https` is no port; ports go from 0 to 65535"
        );
        assert_eq!(
            wrong("192.0.2.1:65536", None),
            "`65536` is no port; ports go from 0 to 65535"
        );
        assert_eq!(
            wrong("192.0.2.1:", None),
            "`` is no port; ports go from 0 to 65535"
        );
        assert!(wrong("[192.0.2.1]:443", None).contains("write for instance [2001:db8::1]:443"));
        assert!(wrong("[::1]443", None).contains("is no IPv6 address in brackets"));
        assert!(wrong("*.pypi.org", None).ends_with("for one name, such as www.pypi.org"));
        assert!(
            wrong("https://pypi.org/simple", None).contains("a rule names only the host: pypi.org")
        );
        assert!(wrong("192.0.2.1", Some("*")).starts_with("* stands for every protocol"));
        assert_eq!(
            wrong("192.0.2.1:443", Some("icmp")),
            "ICMP has no ports; leave the port out"
        );
        let address = Question::parse("192.0.2.1:443", None).unwrap();
        assert_eq!(
            address.name().unwrap_err().to_string(),
            "`192.0.2.1` is an address; --resolve asks for a name, so leave it out"
        );
    }
}

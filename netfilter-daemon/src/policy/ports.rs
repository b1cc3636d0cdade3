//! Protocol and ports of a rule.

use std::fmt;
use std::ops::RangeInclusive;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// ICMP of IPv4 and of IPv6: a policy that says ICMP means both.
const ICMP: [u8; 2] = [1, 58];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `*`
    Any,
    Tcp,
    Udp,
    /// 1 in IPv4 and 58 in IPv6.
    Icmp,
    /// Any other, by its IANA number. Never 6 or 17, which are [`Self::Tcp`] and [`Self::Udp`].
    Number(u8),
}

/// What a rule permits or denies at its destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Traffic {
    protocol: Protocol,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ports {
    /// `*`: every port, and packets that have none.
    All,
    /// Sorted, neither overlapping nor touching, never empty.
    Ranges(Vec<RangeInclusive<u16>>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no protocol; write TCP, UDP, ICMP, * or a number from 0 to 255")]
    Protocol(String),
    #[error("no ports are given; write * for all of them, or a list such as \"443, 8000-8100\"")]
    Empty,
    #[error("`{0}` has an empty item; write a list such as \"443, 8000-8100\"")]
    EmptyItem(String),
    #[error("port {0} does not exist; ports go from 0 to 65535")]
    TooLarge(String),
    #[error("the range {first}-{last} runs backwards and so is empty; write {last}-{first}")]
    Reversed { first: u16, last: u16 },
    #[error("`{0}` is neither a port nor a range of ports; write for instance 443 or 8000-8100")]
    Garbage(String),
    #[error(
        "* stands for every port and cannot be mixed with others; write * alone, or only ports"
    )]
    MixedAll,
    #[error("{0} has no ports; write `port_ranges: \"*\"`, or protocol TCP or UDP")]
    Portless(Protocol),
}

impl Protocol {
    /// Letter case is free; numbers are those of IANA.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Protocol(text.to_owned());
        match text.trim().to_ascii_uppercase().as_str() {
            "*" | "ANY" => Ok(Self::Any),
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "ICMP" => Ok(Self::Icmp),
            digits if is_number(digits) => match digits.parse() {
                Ok(TCP) => Ok(Self::Tcp),
                Ok(UDP) => Ok(Self::Udp),
                Ok(number) => Ok(Self::Number(number)),
                Err(_) => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }

    /// Whether ports can be told for it. `*` with ports means TCP and UDP.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Any | Self::Tcp | Self::Udp)
    }
}

impl Ports {
    /// `443, 8000-8100`, or `*`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        match text {
            "" => return Err(Error::Empty),
            "*" => return Ok(Self::All),
            _ => {}
        }
        let mut ranges = Vec::new();
        for item in text.split(',').map(str::trim) {
            match item {
                "" => return Err(Error::EmptyItem(text.to_owned())),
                "*" => return Err(Error::MixedAll),
                item => ranges.push(range(item)?),
            }
        }
        Ok(Self::Ranges(merged(ranges)))
    }

    /// One port each.
    pub fn of(ports: impl IntoIterator<Item = u16>) -> Self {
        Self::Ranges(merged(ports.into_iter().map(|port| port..=port).collect()))
    }
}

impl Traffic {
    /// All of it: every protocol, with and without ports.
    pub const ANY: Self = Self {
        protocol: Protocol::Any,
        ports: Ports::All,
    };

    pub fn new(protocol: Protocol, ports: Ports) -> Result<Self, Error> {
        match ports {
            Ports::Ranges(_) if !protocol.has_ports() => Err(Error::Portless(protocol)),
            ports => Ok(Self { protocol, ports }),
        }
    }

    pub fn tcp(ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            protocol: Protocol::Tcp,
            ports: Ports::of(ports),
        }
    }

    pub fn udp(ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            protocol: Protocol::Udp,
            ports: Ports::of(ports),
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// For the compiler: each protocol number with its ports. `None` stands for
    /// every protocol, and then the ports are [`Ports::All`].
    pub fn parts(&self) -> impl Iterator<Item = (Option<u8>, &Ports)> {
        let numbers: Vec<Option<u8>> = match (self.protocol, &self.ports) {
            (Protocol::Any, Ports::All) => vec![None],
            (Protocol::Any, Ports::Ranges(_)) => vec![Some(TCP), Some(UDP)],
            (Protocol::Tcp, _) => vec![Some(TCP)],
            (Protocol::Udp, _) => vec![Some(UDP)],
            (Protocol::Icmp, _) => ICMP.map(Some).to_vec(),
            (Protocol::Number(number), _) => vec![Some(number)],
        };
        numbers.into_iter().map(|number| (number, &self.ports))
    }

    /// The slow and obvious answer, which the compiled tables must agree with.
    /// `port` is that of the remote end; `None` where the packet has none.
    pub fn covers(&self, protocol: u8, port: Option<u16>) -> bool {
        let protocol_covered = match self.protocol {
            Protocol::Any => self.ports == Ports::All || protocol == TCP || protocol == UDP,
            Protocol::Tcp => protocol == TCP,
            Protocol::Udp => protocol == UDP,
            Protocol::Icmp => ICMP.contains(&protocol),
            Protocol::Number(number) => protocol == number,
        };
        let port_covered = match (&self.ports, port) {
            (Ports::All, _) => true,
            (Ports::Ranges(ranges), Some(port)) => ranges.iter().any(|range| range.contains(&port)),
            (Ports::Ranges(_), None) => false,
        };
        protocol_covered && port_covered
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Number(number) => write!(f, "protocol {number}"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ranges(ranges) = self else {
            return f.write_str("*");
        };
        for (index, range) in ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{separator}{first}")?,
                (first, last) => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, &self.ports) {
            (Protocol::Any, Ports::All) => f.write_str("everything"),
            (Protocol::Any, ports) => write!(f, "TCP and UDP {ports}"),
            (Protocol::Tcp | Protocol::Udp, Ports::All) => write!(f, "{} *", self.protocol),
            (protocol, Ports::All) => write!(f, "{protocol}"),
            (protocol, ports) => write!(f, "{protocol} {ports}"),
        }
    }
}

fn range(item: &str) -> Result<RangeInclusive<u16>, Error> {
    let garbage = || Error::Garbage(item.to_owned());
    let port = |text: &str| match text.trim() {
        digits if is_number(digits) => digits
            .parse::<u16>()
            .or(Err(Error::TooLarge(digits.to_owned()))),
        _ => Err(garbage()),
    };
    let Some((first, last)) = item.split_once('-') else {
        return port(item).map(|port| port..=port);
    };
    match (port(first)?, port(last)?) {
        (first, last) if first > last => Err(Error::Reversed { first, last }),
        (first, last) => Ok(first..=last),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests;

//! Where a sink is, as one types it.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use super::{Error, server::PORT};
use crate::lab::probe::Family;

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    port: u16,
}

impl FromStr for Host {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let bare = |name: &str, port| Self {
            name: name
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port,
        };
        if text.parse::<IpAddr>().is_ok() {
            return Ok(bare(text, PORT));
        }
        Ok(match text.rsplit_once(':') {
            Some((name, port)) if let Ok(port) = port.parse() => bare(name, port),
            _ => bare(text, PORT),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The first address of each family.
pub(super) fn resolve(hosts: &[Host]) -> Result<Vec<SocketAddr>, Error> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for host in hosts {
        let addresses = (&host.name[..], host.port).to_socket_addrs();
        let addresses = addresses.into_iter().flatten().filter(|it| usable(it.ip()));
        let before = found.len();
        for address in addresses {
            let family = Family::of(address.ip());
            if !found.iter().any(|it| Family::of(it.ip()) == family) {
                found.push(address);
            }
        }
        if found.len() == before {
            return Err(Error::NoAddress(host.clone()));
        }
    }
    Ok(found)
}

/// Whether frames can be addressed to it by a gateway.
fn usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !it.is_loopback() && !it.is_unspecified() && !it.is_multicast(),
        IpAddr::V6(it) => {
            !it.is_loopback()
                && !it.is_unspecified()
                && !it.is_multicast()
                && !it.is_unicast_link_local()
                && it.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_typed_with_a_port_or_without() {
        for (text, name, port) in [
            ("192.0.2.1", "192.0.2.1", PORT),
            ("192.0.2.1:99", "192.0.2.1", 99),
            ("2001:db8::99", "2001:db8::99", PORT),
            ("[2001:db8::1]:99", "2001:db8::1", 99),
            ("[2001:db8::1]", "2001:db8::1", PORT),
            ("sink.example:99", "sink.example", 99),
            ("sink.example", "sink.example", PORT),
        ] {
            let Ok(host) = text.parse::<Host>();
            assert_eq!((&host.name[..], host.port), (name, port), "{text}");
        }
    }

    #[test]
    fn of_each_family_one_address_is_taken_and_none_of_this_machine() {
        let resolved = |texts: &[&str]| {
            let hosts: Vec<Host> = texts.iter().map(|it| it.parse().unwrap()).collect();
            resolve(&hosts)
        };
        let both = resolved(&["192.0.2.1", "[2001:db8::1]:99"]).unwrap();
        assert_eq!(
            both,
            [
                "192.0.2.1:9478".parse().unwrap(),
                "[2001:db8::1]:99".parse().unwrap()
            ]
        );
        for wrong in [
            &["127.0.0.1"][..],
            &["fe80::1"],
            &["192.0.2.1", "192.0.2.2"],
        ] {
            assert!(resolved(wrong).is_err(), "{wrong:?}");
        }
    }
}

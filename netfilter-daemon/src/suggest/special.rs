//! Destinations of which a person should decide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Flow;
use crate::{
    daemon::audit::Wanted,
    policy::{Policy, Ports, Protocol, Traffic},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;
const DNS_OVER_TLS: u16 = 853;

/// Where clouds tell a machine who it is, and give it what proves that: Azure, AWS, Google and
/// others at the first; AWS also at the second, Alibaba at the third.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Why no rule is made for a destination.
pub(super) fn why_not(address: IpAddr, (protocol, port): Flow, policy: &Policy) -> Option<String> {
    if METADATA.contains(&address) {
        return Some(
            "the cloud's metadata service gives this machine's credentials to every process that asks"
                .to_owned(),
        );
    }
    if is_to_many(address, policy) {
        return Some("to everybody on the link, which work seldom needs".to_owned());
    }
    let dns = port == DNS && (protocol == UDP || protocol == TCP);
    if dns || (port == DNS_OVER_TLS && protocol == TCP) {
        return Some(format!(
            "questions to {address} are not read, so that any data could leave in names; if it is to \
             be asked, write it under `resolvers` and audit again, or have programs ask the policy's own"
        ));
    }
    None
}

fn is_to_many(address: IpAddr, policy: &Policy) -> bool {
    let of_subnet = || {
        policy.on_link.iter().any(|subnet| match (subnet, address) {
            (IpNet::V4(subnet), IpAddr::V4(address)) => {
                subnet.prefix_len() < 31 && subnet.broadcast() == address
            }
            _ => false,
        })
    };
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || of_subnet(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Who answers those who began.
pub(super) enum Answering {
    /// Nobody, or what is no service.
    Nobody,
    /// As `inbound` would have it.
    Service(Traffic),
}

pub(super) fn service(wanted: &Wanted) -> Answering {
    let traffic = match (wanted.protocol, wanted.port) {
        (_, 0) => return Answering::Nobody,
        (TCP, port) => Traffic::new(Protocol::Tcp, Ports::of([port])),
        (UDP, port) => Traffic::new(Protocol::Udp, Ports::of([port])),
        _ => return Answering::Nobody,
    };
    traffic.map_or(Answering::Nobody, Answering::Service)
}

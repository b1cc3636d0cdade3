//! Two namespaces and a cable: a machine to protect, and an internet in which
//! every address answers. And, with a third, a machine that forwards for a workload.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    mounts,
    namespace::{Error, Namespace, veth},
};

/// The interface of the protected machine.
pub const INTERFACE: &str = "eth0";

/// The lab's resolvers, at the internet's end of the cable.
pub const RESOLVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)),
];

/// The interface of a machine that forwards, behind which its workload is.
pub const WORKLOAD: &str = "w0";

const BRIDGE: &str = "br0";

/// The addresses of the protected machine, or of the workload behind it.
pub const PROTECTED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2)),
];

pub struct Topology {
    /// Where the daemon runs.
    pub protected: Namespace,
    pub internet: Namespace,
    /// Whose packets are judged, where those are not the protected machine's own.
    pub workload: Option<Namespace>,
}

impl Topology {
    pub fn build() -> Result<Self, Error> {
        let [protected, internet] = cabled()?;
        address(&protected, INTERFACE, 2)?;
        Ok(Self {
            protected,
            internet,
            workload: None,
        })
    }

    /// The machine forwards as a cable does: all that its workload sends reaches the internet's
    /// end, whatever it is, so that what does not was stopped by the filter. A router would stop
    /// by itself what is no whole packet to somewhere else.
    pub fn with_workload() -> Result<Self, Error> {
        let [protected, internet] = cabled()?;
        let workload = computer()?;
        veth(&protected, WORKLOAD, &workload, INTERFACE)?;
        protected.ip(&format!(
            "link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0"
        ))?;
        for port in [INTERFACE, WORKLOAD] {
            protected.ip(&format!("link set {port} master {BRIDGE}"))?;
            // Senders may be forged, so it learns nothing from them; and frames to groups that
            // bridges keep to themselves go on, but for those that stop a card.
            protected.ip(&format!(
                "link set {port} type bridge_slave learning off group_fwd_mask 0xfffd"
            ))?;
        }
        // Rules of iptables, which other bridges of the machine may need, read packets, too.
        for family in ["ip", "ip6", "arp"] {
            protected.sysctl(&format!("net/bridge/bridge-nf-call-{family}tables"), "0")?;
        }
        protected.ip(&format!("link set {BRIDGE} up"))?;
        address(&workload, INTERFACE, 2)?;
        address(&protected, BRIDGE, 3)?;
        Ok(Self {
            protected,
            internet,
            workload: Some(workload),
        })
    }

    /// Where what is judged is sent from, by [`INTERFACE`].
    pub fn inside(&self) -> &Namespace {
        self.workload.as_ref().unwrap_or(&self.protected)
    }
}

/// The machine and the internet, which has its addresses.
fn cabled() -> Result<[Namespace; 2], Error> {
    let protected = computer()?.with_private_mounts(mounts::prepare)?;
    let internet = computer()?;
    veth(&protected, INTERFACE, &internet, INTERFACE)?;
    internet.ip(&format!("address add 10.99.0.1/24 dev {INTERFACE}"))?;
    internet.ip(&format!("address add fd99::1/64 dev {INTERFACE} nodad"))?;
    take_every_address(&internet)?;
    Ok([protected, internet])
}

fn computer() -> Result<Namespace, Error> {
    let namespace = Namespace::new()?;
    // New namespaces take these from the machine.
    namespace.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    namespace.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
    Ok(namespace)
}

/// An address on the cable, and the internet as the way to all others.
fn address(namespace: &Namespace, interface: &str, host: u8) -> Result<(), Error> {
    for address in [
        format!("10.99.0.{host}/24 dev {interface}"),
        format!("fd99::{host}/64 dev {interface} nodad"),
    ] {
        namespace.ip(&format!("address add {address}"))?;
    }
    namespace.ip("route add default via 10.99.0.1")?;
    namespace.ip("route add default via fd99::1")
}

/// Whether an address is one that the lab's internet can stand for.
pub fn routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            !matches!(first, 0 | 127 | 224..) && [first, second, third] != [10, 99, 0]
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
                || address.segments()[..4] == [0xfd99, 0, 0, 0])
        }
    }
}

/// Whether the kernel has IPv6 at all, without which there is no lab.
pub fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Linux calls this AnyIP. The routes must be in the table `local`, as there
/// the kernel looks up whether it may answer from an address; and so the way
/// back to the cable must be there too, for that table is asked first.
fn take_every_address(internet: &Namespace) -> Result<(), Error> {
    for back in ["10.99.0.0/24", "fd99::/64", "fe80::/64"] {
        internet.ip(&format!("route add {back} dev {INTERFACE} table local"))?;
    }
    internet.ip("-4 route add local default dev lo")?;
    internet.ip("-6 route add local default dev lo")?;
    internet.sysctl("net/ipv6/ip_nonlocal_bind", "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_cable_and_of_no_host_are_not_routable() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.99.0.9",
        ] {
            assert!(!routable(address.parse().unwrap()), "{address}");
        }
        for address in [
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "fd99::9",
            "::ffff:192.0.2.1",
        ] {
            assert!(!routable(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_beside_those_of_the_cable_are_routable() {
        for address in [
            "1.0.0.0",
            "126.0.0.1",
            "223.255.255.255",
            "10.99.1.0",
            "169.254.169.254",
        ] {
            assert!(routable(address.parse().unwrap()), "{address}");
        }
        for address in ["fd99:0:0:1::", "2001:db8::", "64:ff9b::1.2.3.4"] {
            assert!(routable(address.parse().unwrap()), "{address}");
        }
    }
}

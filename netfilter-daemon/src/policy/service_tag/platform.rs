//! The tags that are in no published list: Azure's documentation gives their addresses.
//! <https://learn.microsoft.com/azure/virtual-network/service-tags-overview>

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::Tag;
use super::subtract::subtract;

pub(super) const NAMES: [&str; 5] = [
    "VirtualNetwork",
    "AzureLoadBalancer",
    "AzurePlatformDNS",
    "AzurePlatformIMDS",
    "Internet",
];

/// DNS, DHCP, health probes and the guest agent, on every Azure host.
pub(in crate::policy) const WIRE_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16));
/// The instance metadata service.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// What `Internet` starts from.
const GLOBAL: [&str; 2] = ["0.0.0.0/0", "2000::/3"];
/// What of [`GLOBAL`] is not public: IANA's special-purpose registries, in which
/// no public server is, and [`WIRE_SERVER`], which has a tag of its own.
const NOT_PUBLIC: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
];

/// The tag of that name, letter case aside. `virtual_network` is what
/// `VirtualNetwork` stands for and what `Internet` leaves out.
pub(super) fn tag(name: &str, virtual_network: &[IpNet]) -> Option<Tag> {
    let name = NAMES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))?;
    let prefixes = match name {
        "VirtualNetwork" => virtual_network.to_vec(),
        "AzureLoadBalancer" | "AzurePlatformDNS" => vec![WIRE_SERVER.into()],
        "AzurePlatformIMDS" => vec![METADATA.into()],
        _ => internet(virtual_network),
    };
    Some(Tag {
        name: name.to_owned(),
        prefixes,
    })
}

fn internet(virtual_network: &[IpNet]) -> Vec<IpNet> {
    let networks = |texts: &[&str]| -> Vec<IpNet> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let mut holes = networks(&NOT_PUBLIC);
    holes.extend(virtual_network);
    subtract(&networks(&GLOBAL), &holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(name: &str) -> Vec<IpNet> {
        let subnet = "20.1.2.0/24".parse().unwrap();
        tag(name, &[subnet]).unwrap().prefixes
    }

    fn internet_has(address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        prefixes("Internet")
            .iter()
            .any(|net| net.contains(&address))
    }

    #[test]
    fn every_constant_is_a_network() {
        for text in GLOBAL.iter().chain(&NOT_PUBLIC) {
            let network: IpNet = text.parse().unwrap();
            assert_eq!(network, network.trunc(), "{text}");
        }
    }

    #[test]
    fn platform_tags_are_their_documented_addresses() {
        let only = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        assert_eq!(prefixes("AzurePlatformDNS"), only("168.63.129.16/32"));
        assert_eq!(prefixes("AzureLoadBalancer"), only("168.63.129.16/32"));
        assert_eq!(prefixes("AzurePlatformIMDS"), only("169.254.169.254/32"));
        assert_eq!(prefixes("VirtualNetwork"), only("20.1.2.0/24"));
    }

    #[test]
    fn letter_case_of_a_platform_tag_is_free() {
        assert_eq!(tag("internet", &[]).unwrap().name, "Internet");
        assert!(tag("Internets", &[]).is_none());
    }

    #[test]
    fn the_internet_is_what_is_public() {
        for public in ["1.1.1.1", "20.1.3.0", "168.63.129.15", "2606:4700::1111"] {
            assert!(internet_has(public), "{public}");
        }
    }

    #[test]
    fn the_internet_is_neither_private_nor_the_platform_nor_the_virtual_network() {
        for other in [
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "168.63.129.16",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "20.1.2.3",
            "fd00::1",
            "fe80::1",
            "2002:a9fe:a9fe::",
            "2001:0:4136::",
            "::1",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!internet_has(other), "{other}");
        }
    }
}

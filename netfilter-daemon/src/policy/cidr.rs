//! Addresses in rules: `10.20.0.0/16`, a single address, or a range `10.0.0.1-10.0.0.9`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("`{0}` is no network; write one such as 10.20.0.0/16 or 2001:db8::/32, or an address")]
    Garbage(String),
    #[error("`{text}` has no valid prefix length; for {address} it is a number from 0 to {max}")]
    PrefixLength {
        text: String,
        address: IpAddr,
        max: u8,
    },
    #[error(
        "`{given}` has bits set behind its prefix length; the network is {network}, the single \
         address is {single}"
    )]
    HostBits {
        given: IpNet,
        network: IpNet,
        single: IpNet,
    },
    #[error("`{given}` writes its prefix length as a mask; write {network}")]
    Mask { given: String, network: IpNet },
    #[error("the range {first}-{last} runs backwards and so is empty; write {last}-{first}")]
    Reversed { first: IpAddr, last: IpAddr },
    #[error("the range {first}-{last} mixes IPv4 and IPv6; write two")]
    Mixed { first: IpAddr, last: IpAddr },
    #[error("`{0}` is a name, not a network; write a rule of `type: fqdn`")]
    Name(String),
}

/// One network, or the few that a range is made of.
pub(super) fn parse(text: &str) -> Result<Vec<IpNet>, Error> {
    let text = text.trim();
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse())
    {
        return range(first, last);
    }
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => Ok(vec![IpNet::from(address)]),
            Err(_) => Err(not_an_address(text)),
        };
    };
    let Ok(address) = address.trim().parse::<IpAddr>() else {
        return Err(not_an_address(text));
    };
    network(text, address, length.trim()).map(|network| vec![network])
}

fn network(text: &str, address: IpAddr, length: &str) -> Result<IpNet, Error> {
    if let Ok(mask) = length.parse::<IpAddr>()
        && let Ok(masked) = IpNet::with_netmask(address, mask)
    {
        return Err(Error::Mask {
            given: text.to_owned(),
            network: masked.trunc(),
        });
    }
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let given = length
        .parse()
        .ok()
        .filter(|_| digits)
        .and_then(|length| IpNet::new(address, length).ok())
        .ok_or_else(|| Error::PrefixLength {
            text: text.to_owned(),
            address,
            max: IpNet::from(address).max_prefix_len(),
        })?;
    if given != given.trunc() {
        return Err(Error::HostBits {
            given,
            network: given.trunc(),
            single: address.into(),
        });
    }
    Ok(given)
}

fn range(first: IpAddr, last: IpAddr) -> Result<Vec<IpNet>, Error> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Ok(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Ok(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            Err(Error::Reversed { first, last })
        }
        _ => Err(Error::Mixed { first, last }),
    }
}

fn not_an_address(text: &str) -> Error {
    let is_name = text.contains(|c: char| c.is_ascii_alphabetic())
        && !text.contains(':')
        && text.parse::<super::Pattern>().is_ok();
    match is_name {
        true => Error::Name(text.to_owned()),
        false => Error::Garbage(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        parse(text).unwrap().iter().map(IpNet::to_string).collect()
    }

    fn wrong(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn networks_of_both_families_are_read() {
        assert_eq!(read("10.20.0.0/16"), ["10.20.0.0/16"]);
        assert_eq!(read("0.0.0.0/0"), ["0.0.0.0/0"]);
        assert_eq!(read("2001:db8::/32"), ["2001:db8::/32"]);
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(read("168.63.129.16"), ["168.63.129.16/32"]);
        assert_eq!(read("fd00:ec2::254"), ["fd00:ec2::254/128"]);
    }

    #[test]
    fn a_range_is_split_into_networks_and_holds_no_more_than_its_ends() {
        assert_eq!(
            read("10.0.0.1-10.0.0.4"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]
        );
        assert_eq!(read("0.0.0.0 - 255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(read("::-::1"), ["::/127"]);
        assert_eq!(read("10.0.0.1-10.0.0.1"), ["10.0.0.1/32"]);
        assert_eq!(read("::1-::1"), ["::1/128"]);
    }

    #[test]
    fn host_bits_are_answered_with_the_network_and_with_the_address() {
        let told = wrong("10.20.3.4/16");
        assert!(told.contains("the network is 10.20.0.0/16, the single address is 10.20.3.4/32"));
        assert!(wrong("2001:db8::1/64").contains("2001:db8::/64"));
        assert!(parse("10.20.3.4/32").is_ok());
    }

    #[test]
    fn what_is_no_network_is_answered_by_what_would_be_right() {
        for garbage in [
            "",
            "10.0.0/8",
            "10.0.0.256/32",
            "10.0.0.0/8/8",
            "::g/64",
            "*",
        ] {
            let told = wrong(garbage);
            assert!(
                told.contains("no network") || told.contains("prefix length"),
                "{told}"
            );
        }
        assert!(wrong("10.0.0.0/33").contains("from 0 to 32"));
        assert!(wrong("::/129").contains("from 0 to 128"));
        assert!(wrong("10.0.0.0/+8").contains("from 0 to 32"));
        assert!(wrong("10.0.0.0/").contains("from 0 to 32"));
        assert!(wrong("10.1.0.0/255.255.0.0").ends_with("write 10.1.0.0/16"));
        assert!(wrong("10.0.0.9-10.0.0.1").ends_with("write 10.0.0.1-10.0.0.9"));
        assert!(wrong("10.0.0.1-::1").contains("mixes IPv4 and IPv6"));
        assert!(wrong("pypi.org").contains("`type: fqdn`"));
    }
}

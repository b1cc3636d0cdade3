//! Which network interfaces are filtered.

use std::{fs, io};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrLike};

/// Of the thread's own network namespace. /sys/class/net would be that of
/// whoever mounted /sys.
const ROUTES_IPV4: &str = "/proc/thread-self/net/route";
const ROUTES_IPV6: &str = "/proc/thread-self/net/ipv6_route";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    /// A default route of IPv4 or IPv6 leaves by it.
    pub default_route: bool,
}

/// The interfaces to filter, and who says so. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub names: Vec<String>,
    pub by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `--interface`
    CommandLine,
    /// `interfaces:`
    Policy,
    /// Neither named one.
    Auto,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot list the network interfaces: {0}")]
    List(#[source] io::Error),
    #[error("there is no interface `{name}`, which {by} names; there are {present}")]
    Absent {
        name: String,
        by: By,
        present: String,
    },
    #[error(
        "no interface but loopback is up; name those to filter with --interface, or with `interfaces:` in the policy"
    )]
    NoneUp,
}

/// The command line wins over the policy. Without either, every interface that
/// could let something out: those of the default routes first, then all others
/// that are up.
pub fn choose(
    command_line: &[String],
    policy: Option<&[String]>,
    present: &[Interface],
) -> Result<Choice, Error> {
    let (named, by) = match (command_line, policy) {
        ([_, ..], _) => (command_line, By::CommandLine),
        (_, Some(policy @ [_, ..])) => (policy, By::Policy),
        _ => return automatic(present),
    };
    let mut names: Vec<String> = Vec::new();
    for name in named {
        if !present.iter().any(|interface| interface.name == *name) {
            let present: Vec<&str> = present.iter().map(|each| each.name.as_str()).collect();
            return Err(Error::Absent {
                name: name.clone(),
                by,
                present: present.join(", "),
            });
        }
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(Choice { names, by })
}

/// All interfaces of this network namespace, in the kernel's order.
pub fn present() -> Result<Vec<Interface>, Error> {
    let routed = [
        default_routes_ipv4(&read(ROUTES_IPV4)?),
        default_routes_ipv6(&read(ROUTES_IPV6)?),
    ]
    .concat();
    let mut present: Vec<Interface> = Vec::new();
    for address in getifaddrs().map_err(|errno| Error::List(errno.into()))? {
        // The link's own entry: those of IPv4 addresses may carry a label such as eth0:1.
        let link = address.address.is_some_and(|address| {
            address.family() == Some(nix::sys::socket::AddressFamily::Packet)
        });
        if !link
            || present
                .iter()
                .any(|known| known.name == address.interface_name)
        {
            continue;
        }
        present.push(Interface {
            up: address.flags.contains(InterfaceFlags::IFF_UP),
            loopback: address.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            default_route: routed.contains(&address.interface_name),
            name: address.interface_name,
        });
    }
    Ok(present)
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "the command line",
            Self::Policy => "the policy",
            Self::Auto => "auto",
        })
    }
}

fn automatic(present: &[Interface]) -> Result<Choice, Error> {
    let usable = || present.iter().filter(|interface| !interface.loopback);
    let routed = usable().filter(|interface| interface.default_route);
    let others = usable().filter(|interface| interface.up && !interface.default_route);
    let names: Vec<String> = routed
        .chain(others)
        .map(|interface| interface.name.clone())
        .collect();
    if names.is_empty() {
        return Err(Error::NoneUp);
    }
    Ok(Choice {
        names,
        by: By::Auto,
    })
}

/// A kernel without IPv6 has no such file.
fn read(path: &str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(Error::List),
    }
}

/// Columns: interface, destination, gateway, flags, refcnt, use, metric, mask, ...
fn default_routes_ipv4(table: &str) -> Vec<String> {
    let columns = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns
        .filter(|columns| {
            columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000")
        })
        .map(|columns| columns[0].to_owned())
        .collect()
}

/// Columns: destination, its prefix length, source, its prefix length, next hop,
/// metric, refcnt, use, flags, interface. The kernel keeps a default route that
/// rejects, by way of `lo`.
fn default_routes_ipv6(table: &str) -> Vec<String> {
    let columns = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns
        .filter(|columns| columns.get(1) == Some(&"00"))
        .filter_map(|columns| columns.get(9).map(|name| (*name).to_owned()))
        .filter(|name| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, up: bool, default_route: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            up,
            loopback: name == "lo",
            default_route,
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo", true, false),
            interface("docker0", true, false),
            interface("eth0", true, true),
            interface("eth1", false, false),
        ]
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn auto_takes_the_default_routes_first_and_then_all_that_is_up() {
        let choice = choose(&[], None, &machine()).unwrap();
        assert_eq!(
            choice,
            Choice {
                names: names(&["eth0", "docker0"]),
                by: By::Auto
            }
        );
    }

    #[test]
    fn auto_never_takes_loopback_even_if_a_default_route_leaves_by_it() {
        let present = [interface("lo", true, true), interface("eth0", true, false)];
        assert_eq!(choose(&[], None, &present).unwrap().names, names(&["eth0"]));
    }

    #[test]
    fn nothing_to_filter_is_an_error_and_not_an_empty_filter() {
        let error = choose(&[], None, &[interface("lo", true, false)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no interface but loopback is up")
        );
    }

    #[test]
    fn the_command_line_wins_over_the_policy() {
        let policy = names(&["eth1"]);
        let choice = choose(&names(&["docker0", "docker0"]), Some(&policy), &machine()).unwrap();
        assert_eq!(
            choice,
            Choice {
                names: names(&["docker0"]),
                by: By::CommandLine
            }
        );
        let choice = choose(&[], Some(&policy), &machine()).unwrap();
        assert_eq!(
            choice,
            Choice {
                names: policy,
                by: By::Policy
            }
        );
    }

    #[test]
    fn an_interface_that_is_absent_is_named_with_those_that_are_there() {
        let error = choose(&names(&["eth9"]), None, &machine()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no interface `eth9`, which the command line names; \
             there are lo, docker0, eth0, eth1"
        );
    }

    #[test]
    fn default_routes_are_read_as_the_kernel_prints_them() {
        let ipv4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
        assert_eq!(default_routes_ipv4(ipv4), ["eth0"]);
        let ipv6 = "\
            fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        assert_eq!(default_routes_ipv6(ipv6), ["eth0"]);
    }

    #[test]
    fn this_machine_has_a_loopback_interface() {
        let present = present().unwrap();
        assert!(
            present
                .iter()
                .any(|interface| interface.name == "lo" && interface.loopback)
        );
    }
}

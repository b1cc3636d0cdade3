//! Which network interfaces are filtered.

use std::{
    fs::File,
    io::{self, Read},
};

use crate::netlink;

mod coverage;
mod frames;

pub use coverage::{Coverage, coverage};
pub use frames::flags;

/// Of the thread's own network namespace. /sys/class/net would be that of
/// whoever mounted /sys.
const ROUTES_IPV4: &str = "/proc/thread-self/net/route";
const ROUTES_IPV6: &str = "/proc/thread-self/net/ipv6_route";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub loopback: bool,
    /// `ARPHRD_`: what its frames begin with.
    pub hardware: u16,
    /// What made it: `vlan`, `bridge`, `veth`; a physical one has none.
    pub kind: Option<String>,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The interface that it stands on or is a pair with.
    pub lower: Option<u32>,
    /// A default route of IPv4 or IPv6 leaves by it.
    pub default_route: bool,
}

/// The interfaces to filter, and who says so. Never empty. In what was named, `*` stands
/// for any letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub names: Vec<String>,
    pub by: By,
    /// Those that lead to workloads, and who says so.
    pub workloads: Vec<String>,
    pub workloads_by: By,
}

/// What a choice comes to, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    pub uplinks: Vec<String>,
    pub workloads: Vec<String>,
}

impl Choice {
    /// Those of the interfaces at hand that it chooses.
    pub fn places(&self, present: &[Interface]) -> Places {
        let (mut uplinks, mut workloads) = (Vec::new(), Vec::new());
        for interface in present {
            match coverage(interface, present, self) {
                Coverage::Workload(_) => workloads.push(interface.name.clone()),
                coverage if coverage.is_covered() => uplinks.push(interface.name.clone()),
                _ => {}
            }
        }
        // In the order in which they were named, or of importance.
        let named = |name: &String| self.names.iter().position(|each| matches(each, name));
        uplinks.sort_by_key(|name| named(name).unwrap_or(usize::MAX));
        Places { uplinks, workloads }
    }
}

/// Whether an interface has this name, or one that fits this pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, behind)) => name.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]);
            ends.any(|end| matches(behind, end))
        }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `--interface`, `--workload`
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
    #[error(
        "there is no interface `{name}`, which {by} names; there are {present}: name one of those"
    )]
    Absent {
        name: String,
        by: By,
        present: String,
    },
    #[error(
        "there is no interface by which a packet could leave; name those to filter with --interface, or with `interfaces:` in the policy"
    )]
    None,
}

/// The command line wins over the policy. Without either, every interface by which a
/// packet can leave the machine, see [`coverage()`]: those of the default routes first.
/// `workloads` come with who named them: where that is the command line, uplinks are
/// those that it names, or none.
pub fn choose(
    command_line: &[String],
    policy: Option<&[String]>,
    (workloads, workloads_by): (&[String], By),
    present: &[Interface],
) -> Result<Choice, Error> {
    let (named, by) = match (command_line, policy) {
        ([_, ..], _) => (command_line, By::CommandLine),
        _ if workloads_by == By::CommandLine => (command_line, By::CommandLine),
        (_, Some(policy)) if !(policy.is_empty() && workloads.is_empty()) => (policy, By::Policy),
        _ => return automatic(workloads, workloads_by, present),
    };
    let typed: &[String] = match workloads_by {
        By::CommandLine => workloads,
        By::Policy | By::Auto => &[],
    };
    for (name, by) in (named.iter().map(|name| (name, by)))
        .chain(typed.iter().map(|name| (name, By::CommandLine)))
    {
        if !name.contains('*') && !present.iter().any(|interface| interface.name == *name) {
            let present: Vec<&str> = present.iter().map(|each| each.name.as_str()).collect();
            return Err(Error::Absent {
                name: name.clone(),
                by,
                present: present.join(", "),
            });
        }
    }
    let mut names: Vec<String> = Vec::new();
    for name in named {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(Choice {
        names,
        by,
        workloads: workloads.to_vec(),
        workloads_by,
    })
}

/// All interfaces of this network namespace, in the kernel's order.
pub fn present() -> Result<Vec<Interface>, Error> {
    let routed = [
        default_routes_ipv4(&read(ROUTES_IPV4)?),
        default_routes_ipv6(&read(ROUTES_IPV6)?),
    ]
    .concat();
    let described = netlink::links().map_err(Error::List)?;
    let present = described.into_iter().map(|link| Interface {
        default_route: routed.contains(&link.name),
        index: link.index,
        name: link.name,
        loopback: link.loopback,
        hardware: link.hardware,
        kind: link.kind,
        master: link.master,
        lower: link.lower,
    });
    Ok(present.collect())
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

fn automatic(
    workloads: &[String],
    workloads_by: By,
    present: &[Interface],
) -> Result<Choice, Error> {
    let choice = |names| Choice {
        names,
        by: By::Auto,
        workloads: workloads.to_vec(),
        workloads_by,
    };
    let covered = || {
        let nobody = choice(Vec::new());
        present.iter().filter(move |interface| {
            let coverage = coverage(interface, present, &nobody);
            coverage.is_covered() && !matches!(coverage, Coverage::Workload(_))
        })
    };
    let routed = covered().filter(|interface| interface.default_route);
    let others = covered().filter(|interface| !interface.default_route);
    let names: Vec<String> = routed
        .chain(others)
        .map(|interface| interface.name.clone())
        .collect();
    if names.is_empty() && workloads.is_empty() {
        return Err(Error::None);
    }
    Ok(choice(names))
}

/// A kernel without IPv6 has no such file. None has a length, and whoever asks for it reads in small
/// pieces.
fn read(path: &str) -> Result<String, Error> {
    let mut text = String::with_capacity(1 << 13);
    let read = File::open(path).and_then(|file| file.take(u64::MAX).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::List(error)),
        _ => Ok(text),
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

    const NOBODY: (&[String], By) = (&[], By::Policy);

    fn interface(name: &str, default_route: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            loopback: name == "lo",
            default_route,
            ..Interface::default()
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo", false),
            interface("docker0", false),
            interface("eth0", true),
            interface("eth1", false),
        ]
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn auto_takes_the_default_routes_first_and_then_the_others() {
        let choice = choose(&[], None, NOBODY, &machine()).unwrap();
        assert_eq!(
            choice,
            Choice {
                names: names(&["eth0", "docker0", "eth1"]),
                by: By::Auto,
                workloads: Vec::new(),
                workloads_by: By::Policy,
            }
        );
    }

    #[test]
    fn auto_never_takes_loopback_even_if_a_default_route_leaves_by_it() {
        let present = [interface("lo", true), interface("eth0", false)];
        assert_eq!(
            choose(&[], None, NOBODY, &present).unwrap().names,
            names(&["eth0"])
        );
    }

    #[test]
    fn nothing_to_filter_is_an_error_and_not_an_empty_filter() {
        let error = choose(&[], None, NOBODY, &[interface("lo", false)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("there is no interface by which a packet could leave")
        );
    }

    #[test]
    fn the_command_line_wins_over_the_policy() {
        let policy = names(&["eth1"]);
        let choice = choose(
            &names(&["docker0", "docker0"]),
            Some(&policy),
            NOBODY,
            &machine(),
        )
        .unwrap();
        assert_eq!(
            choice,
            Choice {
                names: names(&["docker0"]),
                by: By::CommandLine,
                workloads: Vec::new(),
                workloads_by: By::Policy,
            }
        );
        let choice = choose(&[], Some(&policy), NOBODY, &machine()).unwrap();
        assert_eq!(
            choice,
            Choice {
                names: policy,
                by: By::Policy,
                workloads: Vec::new(),
                workloads_by: By::Policy,
            }
        );
    }

    #[test]
    fn a_star_stands_for_any_letters_and_no_others_are_taken() {
        for (pattern, name, fits) in [
            ("tap*", "tap0", true),
            ("tap*", "tap", true),
            ("tap*", "xtap0", false),
            ("*", "eth0", true),
            ("v*h*", "veth12", true),
            ("v*h*2", "veth13", false),
            ("eth0", "eth01", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn workloads_are_no_uplinks_whoever_chooses_those() {
        let workloads = names(&["eth*"]);
        let chosen = |command_line: &[String], policy| {
            let choice =
                choose(command_line, policy, (&workloads, By::Policy), &machine()).unwrap();
            choice.places(&machine())
        };
        let places = |uplinks: &[&str], workloads: &[&str]| Places {
            uplinks: names(uplinks),
            workloads: names(workloads),
        };
        let both = ["eth0", "eth1"];
        assert_eq!(chosen(&[], None), places(&["docker0"], &both));
        assert_eq!(chosen(&[], Some(&[])), places(&[], &both));
        assert_eq!(
            chosen(&names(&["docker0"]), None),
            places(&["docker0"], &both)
        );
    }

    #[test]
    fn where_the_command_line_names_workloads_it_names_all_uplinks_too() {
        let workloads = names(&["eth*"]);
        let policy = names(&["docker0"]);
        let chosen = |command_line: &[String]| {
            let by = (&workloads[..], By::CommandLine);
            let choice = choose(command_line, Some(&policy), by, &machine()).unwrap();
            choice.places(&machine()).uplinks
        };
        assert_eq!(chosen(&[]), names(&[]));
        assert_eq!(chosen(&policy), policy);
    }

    #[test]
    fn an_interface_that_is_absent_is_named_with_those_that_are_there() {
        let absent = names(&["eth9"]);
        for (uplinks, workloads) in [
            (&absent[..], NOBODY),
            (&[][..], (&absent[..], By::CommandLine)),
        ] {
            let error = choose(uplinks, None, workloads, &machine()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "there is no interface `eth9`, which the command line names; \
                 there are lo, docker0, eth0, eth1: name one of those"
            );
        }
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

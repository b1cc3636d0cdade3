//! Whether an interface is filtered, and why.

use super::{By, Choice, Interface, matches};

/// Why an interface is filtered, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    DefaultRoute,
    WayOut,
    Named(By),
    Loopback,
    NotNamed(By),
    /// Named as one that leads to a workload.
    Workload(By),
    /// A bridge with containers or virtual machines on it and nothing else.
    InwardBridge,
    /// The machine's end of a container's or virtual machine's cable.
    InwardPort,
}

impl Coverage {
    pub const fn is_covered(self) -> bool {
        matches!(
            self,
            Self::DefaultRoute | Self::WayOut | Self::Named(_) | Self::Workload(_)
        )
    }

    /// In a few words.
    pub fn reason(self) -> String {
        match self {
            Self::DefaultRoute => "a default route leaves by it".to_owned(),
            Self::WayOut => "packets can leave by it".to_owned(),
            Self::Named(by) => format!("named by {by}"),
            Self::Loopback => "leads nowhere: loopback".to_owned(),
            Self::NotNamed(by) => format!("not named by {by}"),
            Self::Workload(by) => format!("leads to a workload: named by {by}"),
            Self::InwardBridge => {
                "leads to this machine's containers only: a bridge of nothing else".to_owned()
            }
            Self::InwardPort => {
                "leads to a container of this machine: a port of a bridge".to_owned()
            }
        }
    }
}

/// What nobody named is filtered unless it is known to lead inward: what is unknown
/// leads out.
pub fn coverage(interface: &Interface, present: &[Interface], choice: &Choice) -> Coverage {
    let is_one = |names: &[String]| names.iter().any(|name| matches(name, &interface.name));
    if !interface.loopback && is_one(&choice.workloads) {
        return Coverage::Workload(choice.workloads_by);
    }
    if choice.by != By::Auto {
        return if is_one(&choice.names) {
            Coverage::Named(choice.by)
        } else {
            Coverage::NotNamed(choice.by)
        };
    }
    if interface.loopback {
        return Coverage::Loopback;
    }
    if interface.default_route {
        return Coverage::DefaultRoute;
    }
    if interface.is_bridge() && leads_inward(interface, present) {
        return Coverage::InwardBridge;
    }
    // Of a bridge that a default route leaves by, with cables only, one is the way out.
    let bridge = present.iter().find(|bridge| {
        interface.is_cable() && Some(bridge.index) == interface.master && bridge.is_bridge()
    });
    match bridge {
        Some(bridge) if !bridge.default_route || !leads_inward(bridge, present) => {
            Coverage::InwardPort
        }
        _ => Coverage::WayOut,
    }
}

/// Whether a bridge has only cables to containers and virtual machines.
fn leads_inward(bridge: &Interface, present: &[Interface]) -> bool {
    let mut ports = present
        .iter()
        .filter(|port| port.master == Some(bridge.index));
    ports.all(Interface::is_cable)
}

impl Interface {
    fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// To a container (veth) or a virtual machine (tun, of which tap is a mode).
    fn is_cable(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "tun"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, kind: &str, master: u32) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            loopback: name == "lo",
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            master: (master != 0).then_some(master),
            default_route: false,
            ..Interface::default()
        }
    }

    fn routed(interface: Interface) -> Interface {
        Interface {
            default_route: true,
            ..interface
        }
    }

    fn of(present: &[Interface], name: &str, choice: &Choice) -> Coverage {
        let interface = present.iter().find(|each| each.name == name).unwrap();
        coverage(interface, present, choice)
    }

    fn auto(present: &[Interface], name: &str) -> Coverage {
        let choice = Choice {
            names: Vec::new(),
            by: By::Auto,
            workloads: Vec::new(),
            workloads_by: By::Policy,
        };
        of(present, name, &choice)
    }

    #[test]
    fn everything_is_a_way_out_but_what_leads_inward() {
        let host = [
            interface(1, "lo", "", 0),
            routed(interface(2, "eth0", "", 0)),
            interface(3, "eth1", "", 0),
            interface(4, "wg0", "wireguard", 0),
            interface(5, "docker0", "bridge", 0),
            interface(6, "veth1", "veth", 5),
            interface(7, "virbr0", "bridge", 0),
            interface(8, "vnet0", "tun", 7),
            interface(9, "cali1", "veth", 0),
            interface(10, "tun0", "tun", 0),
            interface(11, "eth0.5", "vlan", 0),
            interface(12, "new0", "of a later kernel", 0),
        ];
        assert_eq!(auto(&host, "lo"), Coverage::Loopback);
        assert_eq!(auto(&host, "eth0"), Coverage::DefaultRoute);
        for way_out in ["eth1", "wg0", "cali1", "tun0", "eth0.5", "new0"] {
            assert_eq!(auto(&host, way_out), Coverage::WayOut, "{way_out}");
        }
        assert_eq!(auto(&host, "docker0"), Coverage::InwardBridge);
        assert_eq!(auto(&host, "virbr0"), Coverage::InwardBridge);
        assert_eq!(auto(&host, "veth1"), Coverage::InwardPort);
        assert_eq!(auto(&host, "vnet0"), Coverage::InwardPort);
    }

    #[test]
    fn a_bridge_with_a_card_leads_out_and_its_cables_do_not() {
        let host = [
            interface(2, "eth0", "", 3),
            routed(interface(3, "br0", "bridge", 0)),
            interface(4, "vnet0", "tun", 3),
        ];
        assert_eq!(auto(&host, "eth0"), Coverage::WayOut);
        assert_eq!(auto(&host, "br0"), Coverage::DefaultRoute);
        assert_eq!(auto(&host, "vnet0"), Coverage::InwardPort);
        let unrouted = [host[0].clone(), interface(3, "br0", "bridge", 0)];
        assert_eq!(auto(&unrouted, "br0"), Coverage::WayOut);
    }

    #[test]
    fn a_default_route_makes_a_way_out_of_anything() {
        let machine = [
            routed(interface(2, "br0", "bridge", 0)),
            routed(interface(3, "veth9", "veth", 4)),
            interface(4, "br1", "bridge", 0),
        ];
        assert_eq!(auto(&machine, "br0"), Coverage::DefaultRoute);
        assert_eq!(auto(&machine, "veth9"), Coverage::DefaultRoute);
    }

    #[test]
    fn where_the_way_out_is_one_of_a_bridges_cables_all_are_filtered() {
        let machine = [
            routed(interface(2, "br0", "bridge", 0)),
            interface(3, "veth1", "veth", 2),
            interface(4, "veth2", "veth", 2),
        ];
        assert_eq!(auto(&machine, "veth1"), Coverage::WayOut);
        assert_eq!(auto(&machine, "veth2"), Coverage::WayOut);
    }

    #[test]
    fn a_veth_of_a_bond_is_no_port_of_a_bridge() {
        let machine = [
            interface(2, "bond0", "bond", 0),
            interface(3, "veth1", "veth", 2),
        ];
        assert_eq!(auto(&machine, "veth1"), Coverage::WayOut);
    }

    #[test]
    fn where_interfaces_are_named_the_names_alone_decide() {
        let machine = [
            routed(interface(2, "eth0", "", 0)),
            interface(3, "docker0", "bridge", 0),
        ];
        let choice = Choice {
            names: vec!["docker0".to_owned()],
            by: By::Policy,
            workloads: Vec::new(),
            workloads_by: By::Policy,
        };
        let not_named = Coverage::NotNamed(By::Policy);
        assert_eq!(of(&machine, "eth0", &choice), not_named);
        assert_eq!(not_named.reason(), "not named by the policy");
        let named = Coverage::Named(By::Policy);
        assert_eq!(of(&machine, "docker0", &choice), named);
    }
}

//! What the programs must know of an interface's frames.

use netfilter_ebpf::abi::{
    INTERFACE_BARE, INTERFACE_BONDED, INTERFACE_TAGGED, INTERFACE_UNDER, INTERFACE_UNREADABLE,
    INTERFACE_WORKLOAD,
};

use super::Interface;

/// The flags of `abi::Interface`. `filtered`: the indexes of all that are; `workloads`: of
/// those that lead to a workload.
pub fn flags(
    interface: &Interface,
    present: &[Interface],
    filtered: &[u32],
    workloads: &[u32],
) -> u32 {
    let mut flags = header(interface.hardware);
    let is_workload = workloads.contains(&interface.index);
    if is_workload {
        flags |= INTERFACE_WORKLOAD;
    } else if !workloads.is_empty() {
        // What arrives may be for one of them.
        flags |= INTERFACE_UNDER;
    }
    let master = present
        .iter()
        .find(|each| Some(each.index) == interface.master);
    match master.and_then(|master| master.kind.as_deref()) {
        Some("bond" | "team") => flags |= INTERFACE_BONDED,
        // What a workload sends has tags only where it is known to be in a VLAN: their
        // numbers could say anything to whoever is on the link.
        Some(_) if !is_workload => flags |= INTERFACE_TAGGED,
        Some(_) | None => {}
    }
    if present.iter().any(|each| sends_tags_by(each, interface)) {
        flags |= INTERFACE_TAGGED;
    }
    let mut above = present
        .iter()
        .filter(|each| interface.master == Some(each.index) || stands_on(each, interface));
    if above.any(|each| filtered.contains(&each.index)) {
        flags |= INTERFACE_UNDER;
    }
    flags
}

/// Whether what arrives at `lower` goes on through `upper` as it is: not so through
/// tunnels, which carry packets in packets.
fn stands_on(upper: &Interface, lower: &Interface) -> bool {
    let kind = upper.kind.as_deref();
    upper.lower == Some(lower.index)
        && matches!(
            kind,
            Some("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec")
        )
}

/// Whether frames of `upper` leave by `lower` as they are, and may have tags: the
/// inner one of a VLAN in a VLAN, or what a virtual machine puts there.
fn sends_tags_by(upper: &Interface, lower: &Interface) -> bool {
    let kind = upper.kind.as_deref();
    upper.lower == Some(lower.index) && matches!(kind, Some("vlan" | "macvlan" | "macvtap"))
}

/// By `ARPHRD_` (include/uapi/linux/if_arp.h). Those without a header are the ones
/// of the kernel's dev_is_mac_header_xmit().
const fn header(hardware: u16) -> u32 {
    match hardware {
        // ETHER, LOOPBACK
        1 | 772 => 0,
        // PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, NONE, VOID
        512 | 519 | 768 | 769 | 776 | 778 | 823 | 0xfffe | 0xffff => INTERFACE_BARE,
        _ => INTERFACE_UNREADABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, kind: &str, master: u32, lower: u32) -> Interface {
        Interface {
            index,
            hardware: 1,
            kind: Some(kind.to_owned()),
            master: (master != 0).then_some(master),
            lower: (lower != 0).then_some(lower),
            ..Interface::default()
        }
    }

    #[test]
    fn what_frames_begin_with_is_known_or_they_are_unreadable() {
        let of = |hardware| {
            let interface = Interface {
                hardware,
                ..Interface::default()
            };
            flags(&interface, &[], &[], &[])
        };
        assert_eq!(of(1), 0);
        assert_eq!(of(0xfffe), INTERFACE_BARE);
        assert_eq!(of(512), INTERFACE_BARE);
        assert_eq!(of(32), INTERFACE_UNREADABLE, "InfiniBand");
    }

    #[test]
    fn a_card_is_under_its_filtered_vlan_and_not_under_a_tunnel() {
        let card = interface(2, "", 0, 0);
        let vlan = [card.clone(), interface(3, "vlan", 0, 2)];
        let both = INTERFACE_UNDER | INTERFACE_TAGGED;
        assert_eq!(flags(&card, &vlan, &[2, 3], &[]), both);
        assert_eq!(flags(&card, &vlan, &[2], &[]), INTERFACE_TAGGED);
        assert_eq!(flags(&vlan[1], &vlan, &[2, 3], &[]), 0);
        let tunnel = [card.clone(), interface(3, "vxlan", 0, 2)];
        assert_eq!(flags(&card, &tunnel, &[2, 3], &[]), 0);
        // The other end of a cable is beside it.
        let pair = [interface(2, "veth", 0, 3), interface(3, "veth", 0, 2)];
        assert_eq!(flags(&pair[0], &pair, &[2, 3], &[]), 0);
    }

    #[test]
    fn an_uplink_is_under_what_leads_to_workloads() {
        let host = [interface(2, "", 0, 0), interface(3, "veth", 0, 0)];
        assert_eq!(flags(&host[0], &host, &[2, 3], &[3]), INTERFACE_UNDER);
        assert_eq!(flags(&host[1], &host, &[2, 3], &[3]), INTERFACE_WORKLOAD);
    }

    #[test]
    fn a_workload_on_a_bridge_has_no_tags_unless_a_vlan_stands_on_its_interface() {
        let port = interface(3, "veth", 9, 0);
        let bridge = [interface(9, "bridge", 0, 0), port.clone()];
        assert_eq!(flags(&port, &bridge, &[3], &[]), INTERFACE_TAGGED);
        assert_eq!(flags(&port, &bridge, &[3], &[3]), INTERFACE_WORKLOAD);
        let vlan = [port.clone(), interface(4, "vlan", 0, 3)];
        let both = INTERFACE_WORKLOAD | INTERFACE_TAGGED;
        assert_eq!(flags(&port, &vlan, &[3], &[3]), both);
    }

    #[test]
    fn members_of_a_bond_are_under_it_and_speak_lacp() {
        let bond = interface(9, "bond", 0, 0);
        let member = interface(2, "", 9, 0);
        let present = [bond, member.clone()];
        let both = INTERFACE_UNDER | INTERFACE_BONDED;
        assert_eq!(flags(&member, &present, &[2, 9], &[]), both);
        let bridge = [interface(9, "bridge", 0, 0), member.clone()];
        let both = INTERFACE_UNDER | INTERFACE_TAGGED;
        assert_eq!(flags(&member, &bridge, &[2, 9], &[]), both);
    }
}

//! What containers and virtual machines send is judged where it enters the host.

use std::{io::ErrorKind, time::Duration};

use netfilter_daemon::lab::{dns::Resolver, mounts};

mod bridged;
mod frames;
mod life;
pub mod site;

use site::{
    ALLOWED, ALLOWED_IPV6, DENIED, DENIED_IPV6, DENIED_NAME, NAME, NAME_IPV6, NAMED, Site, policy,
    zone,
};

/// Far below any time-out of a client.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn the_hosts_own_resolver_is_asked_by_workloads_if_the_policy_names_it() {
    let site = Site::new(false);
    let host = site.world.protected();
    let _resolver = Resolver::start(host, &[[10, 88, 88, 1].into()], zone()).unwrap();
    let _daemon = site.enforce(&policy(""));
    let dig = |name: &str| site.says("dig", &["+tries=1", "+time=1", "@10.88.88.1", name]);
    assert!(!dig(NAME).contains(NAMED), "nobody named it");
    let named = format!("resolvers: [10.88.88.1]\n{}", policy(""));
    let write = || std::fs::write(mounts::POLICY, named);
    host.run(write).unwrap().unwrap();
    assert!(site.world.daemon(&["reload"]).status.success());
    assert!(!site.connects(NAMED, 443));
    assert!(dig(NAME).contains(NAMED));
    assert!(site.connects(NAMED, 443));
    assert!(dig(DENIED_NAME).contains("NXDOMAIN"));
}

fn judges(masquerade: bool, uplinks: &str) {
    let site = Site::new(masquerade);
    assert!(site.connects(DENIED, 443), "unfiltered all goes");
    let daemon = site.enforce(&policy(uplinks));
    assert!(daemon.said.contains("w0"), "{}", daemon.said);
    for round in 0..3 {
        assert!(site.connects(ALLOWED, 443), "{round}: a range");
        assert!(site.connects(ALLOWED_IPV6, 443), "{round}: a range of IPv6");
        let name = format!("n{}.many.example", 7 + round);
        assert!(
            site.connects_by_name(NAME, 443),
            "{round}: a name, its first packet"
        );
        assert!(site.connects_by_name(&name, 443), "{round}: a new name");
        assert!(
            site.connects_by_name(NAME_IPV6, 443),
            "{round}: a name of IPv6"
        );
    }
    assert!(site.connects(NAMED, 443), "what was learned");
    for address in [DENIED, DENIED_IPV6] {
        let (kind, took) = site.refusal(address, 443);
        assert_eq!(kind, ErrorKind::ConnectionRefused, "{address}");
        assert!(took < AT_ONCE, "{address}: {took:?}");
    }
    assert!(!site.connects(NAMED, 8443), "another port of a name");
    let large = vec![b'x'; 4000];
    assert_eq!(site.sends(ALLOWED, &large), None, "in fragments");
    for address in [DENIED, DENIED_IPV6] {
        let told = site.sends(address, b"secret");
        assert!(
            matches!(
                told,
                Some(ErrorKind::HostUnreachable | ErrorKind::PermissionDenied)
            ),
            "{address}: {told:?}"
        );
    }
    let digs = |options: &[&str]| site.says("dig", &[&["+tries=1", "+time=3"], options].concat());
    let denied = [DENIED_NAME, "@10.99.0.1"];
    for options in [&[][..], &["+tcp"], &["-6", "@fd99::1"]] {
        let said = digs(&[options, &denied[..1 + usize::from(options.len() < 2)]].concat());
        assert!(said.contains("NXDOMAIN"), "{options:?}: {said}");
    }
    for options in [
        &["@10.99.0.1"][..],
        &["+tcp", "@10.99.0.1"],
        &["+tcp", "@fd99::1"],
    ] {
        let said = digs(&[options, &["n99.many.example"]].concat());
        assert!(said.contains("203.0.114.99"), "{options:?}: {said}");
    }
    // At first these pass all the same.
    let unsolicited = "netfilter_dns_answers_total{outcome=\"unsolicited\"";
    assert_eq!(site.world.metric(unsolicited), 0);
}

#[test]
fn a_routed_workload_is_judged_where_the_uplink_is_not() {
    judges(false, "");
}

#[test]
fn a_routed_workload_is_judged_where_the_uplink_is_too() {
    judges(false, "eth0, ");
}

#[test]
fn a_workload_behind_the_hosts_address_is_judged_where_the_uplink_is_not() {
    judges(true, "");
}

#[test]
fn a_workload_behind_the_hosts_address_is_judged_where_the_uplink_is_too() {
    judges(true, "eth0, ");
}

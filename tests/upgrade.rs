//! Other tables, other layouts, other builds: what was learned lives on, and there is a
//! way back.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use netfilter_daemon::{
    compile::Image,
    datapath::{Datapath, On, Terms},
};

use netfilter_ebpf::abi::{TABLES_LAYOUT, Users};

use crate::{
    bpffs::{self, DROP, Kernel, PASS, StateDir},
    frame::{self, ACK, SYN, answer, datagram, query, segment, tcp, to},
};

const RESOLVER: &str = "10.0.0.53";
const NAMED: &str = "
resolvers: [10.0.0.53]
outbound_rules:
  - { name: a, type: fqdn, destination: { fqdn: a.example, protocol: TCP, port_ranges: '443' } }
";
/// What a.example lends.
const LENT: &str = "198.18.0.1";

/// A policy with the name and so many even addresses, which cannot be aggregated.
fn large(addresses: u32) -> Image {
    with(addresses, 0)
}

/// The same with odd ones.
fn odd(addresses: u32) -> Image {
    with(addresses, 1)
}

fn with(addresses: u32, first: u32) -> Image {
    let mut policy = NAMED.to_owned();
    for address in 0..addresses {
        let [_, a, b, c] = (address * 2 + first).to_be_bytes();
        writeln!(
            policy,
            "  - {{ name: r{address}, type: ip, destination: {{ cidr: 20.{a}.{b}.{c}/32, protocol: TCP, port_ranges: '443' }} }}"
        )
        .unwrap();
    }
    bpffs::image(&policy)
}

/// Of this build.
fn named(number: u32) -> String {
    format!("tables-{TABLES_LAYOUT}-{number}")
}

fn learn(kernel: &mut Kernel) {
    let question = query(7, "a.example", 1);
    let asked = to(RESOLVER, frame::UDP, datagram(4000, 53, &question));
    assert_eq!(kernel.egress(&asked.bytes()).action, PASS);
    let reply = datagram(53, 4000, &answer(&question, 60, &[LENT]));
    let reply = to(frame::LOCAL, frame::UDP, reply).from(RESOLVER);
    assert_eq!(kernel.ingress(&reply.bytes()).action, PASS);
}

fn come_in(kernel: &mut Kernel) {
    let packet = to(frame::LOCAL, frame::TCP, segment(5000, 22, SYN)).from("203.0.113.7");
    assert_eq!(kernel.ingress(&packet.bytes()).action, PASS);
}

fn replies(kernel: &mut Kernel) -> bool {
    kernel.passes(&to("203.0.113.7", frame::TCP, segment(22, 5000, SYN | ACK)).bytes())
}

fn connects(kernel: &mut Kernel, address: &str) -> bool {
    kernel.passes(&tcp(address, 443).bytes())
}

fn dropped(kernel: &Kernel) -> u64 {
    let counters = kernel.datapath.state().counters().unwrap();
    counters.dropped.iter().map(|drop| drop.packets).sum()
}

/// The one entry of this directory that begins so.
fn entry(directory: &Path, begins: &str) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap();
    let mut found = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(begins)
    });
    let first = found.next().unwrap_or_else(|| panic!("no {begins}"));
    assert_eq!(found.next(), None, "one {begins}");
    first
}

#[test]
fn tables_grow_and_nothing_learned_is_lost() {
    let mut kernel = Kernel::new(NAMED);
    learn(&mut kernel);
    come_in(&mut kernel);
    assert!(!connects(&mut kernel, "20.0.0.2"));
    let before = kernel.datapath.generation();
    kernel.datapath.replace(&large(40_000)).unwrap();
    assert_eq!(kernel.datapath.generation(), before + 1);
    assert_eq!(kernel.datapath.state().generation().unwrap(), before + 1);
    for last in ["20.0.0.2", "20.1.56.126"] {
        assert!(connects(&mut kernel, last), "{last}");
    }
    assert!(!connects(&mut kernel, "20.0.0.3"));
    assert!(connects(&mut kernel, LENT) && replies(&mut kernel));
    assert_eq!(dropped(&kernel), 2, "counters go on");
    entry(kernel.state_dir(), "tables-");
    // And smaller again, which needs no other tables.
    kernel.datapath.replace(&bpffs::image(NAMED)).unwrap();
    assert!(!connects(&mut kernel, "20.0.0.2") && connects(&mut kernel, LENT));
}

#[test]
fn tables_of_another_layout_are_replaced_and_nothing_learned_is_lost() {
    let mut kernel = Kernel::new(NAMED);
    learn(&mut kernel);
    come_in(&mut kernel);
    let tables = entry(kernel.state_dir(), "tables-");
    let foreign = kernel.state_dir().join("tables-4711-9");
    fs::rename(&tables, &foreign).unwrap();
    kernel.restart(&bpffs::image(NAMED));
    assert!(connects(&mut kernel, LENT) && replies(&mut kernel));
    assert!(!connects(&mut kernel, "20.0.0.2"));
    assert!(!foreign.exists());
    // Going back: for the other build, ours are foreign.
    assert!(entry(kernel.state_dir(), "tables-").ends_with(named(10)));
}

#[test]
fn a_map_of_another_layout_is_left_alone_and_all_others_live_on() {
    let learned = |kernel: &Kernel| kernel.state_dir().join("learned");
    for (map, knows_lent, knows_flow) in [
        ("LEASES-", false, true),
        ("HALF_OPEN-", true, false),
        ("DROPPED-", true, true),
    ] {
        let mut kernel = Kernel::new(NAMED);
        learn(&mut kernel);
        come_in(&mut kernel);
        let ours = entry(&learned(&kernel), map);
        let foreign = learned(&kernel).join(format!("{map}4711"));
        fs::rename(&ours, &foreign).unwrap();
        kernel.restart(&bpffs::image(NAMED));
        assert!(ours.exists() && foreign.exists());
        assert_eq!(connects(&mut kernel, LENT), knows_lent, "{map}");
        assert_eq!(replies(&mut kernel), knows_flow, "{map}");
        // The other build returns and finds what it had.
        fs::remove_file(&ours).unwrap();
        fs::rename(&foreign, &ours).unwrap();
        kernel.restart(&bpffs::image(NAMED));
        assert!(connects(&mut kernel, LENT) && replies(&mut kernel), "{map}");
    }
}

#[test]
fn a_start_that_was_killed_before_its_tables_were_in_force_leaves_no_trace() {
    let mut kernel = Kernel::new(NAMED);
    learn(&mut kernel);
    let larger = large(40_000);
    for _ in 0..2 {
        drop(Datapath::load(kernel.state_dir(), &larger).unwrap());
    }
    kernel.restart(&bpffs::image(NAMED));
    assert!(connects(&mut kernel, LENT));
    let names = fs::read_dir(kernel.state_dir()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["learned", "links", &named(1)]);
}

#[test]
fn an_unconfirmed_policy_gives_way_to_its_predecessor_also_without_a_daemon() {
    let second = Terms::to_confirm(Duration::from_secs(1));
    let former = |kernel: &mut Kernel| {
        learn(kernel);
        connects(kernel, "20.0.0.2") && !connects(kernel, "20.0.0.3") && connects(kernel, LENT)
    };
    let (small, larger_one, before) = (odd(3), odd(40_000), large(3));
    // In each copy of the tables once.
    for (larger, replaced) in [(false, false), (true, false), (true, true)] {
        let mut kernel = Kernel::of(&before);
        if replaced {
            kernel.datapath.replace(&before).unwrap();
        }
        let other = if larger { &larger_one } else { &small };
        kernel.datapath.replace_on(other, second).unwrap();
        assert!(connects(&mut kernel, "20.0.0.3") && !connects(&mut kernel, "20.0.0.2"));
        // Nothing is called: the programs look at the clock.
        thread::sleep(Duration::from_millis(2100));
        assert!(former(&mut kernel), "larger: {larger}, {replaced}");
        assert!(kernel.datapath.confirm().is_err(), "too late");
        // And made official, the same.
        kernel.datapath.revert().unwrap();
        assert!(former(&mut kernel), "larger: {larger}, {replaced}");
        kernel.datapath.replace_on(other, second).unwrap();
        kernel.datapath.replace(other).unwrap();
        thread::sleep(Duration::from_millis(2100));
        assert!(connects(&mut kernel, "20.0.0.3"));
    }
}

#[test]
fn the_users_of_a_former_policy_come_back_with_it() {
    let users = |user: u32, addresses| {
        let mut image = large(addresses);
        image.users = Users::of(&[user]);
        image
    };
    let second = Terms::to_confirm(Duration::from_secs(60));
    // In the same tables, and in larger ones.
    for addresses in [3, 40_000] {
        let mut kernel = Kernel::of(&users(7, 3));
        let now = |kernel: &Kernel| kernel.datapath.state().bypass_users().unwrap();
        kernel
            .datapath
            .replace_on(&users(8, addresses), second)
            .unwrap();
        assert_eq!(now(&kernel), Users::of(&[8]));
        kernel.datapath.revert().unwrap();
        assert_eq!(now(&kernel), Users::of(&[7]), "{addresses}");
    }
}

#[test]
fn a_confirmed_policy_stays() {
    let mut kernel = Kernel::new(NAMED);
    let wait = Terms::to_confirm(Duration::from_secs(2));
    kernel.datapath.replace_on(&large(2), wait).unwrap();
    kernel.datapath.confirm().unwrap();
    thread::sleep(Duration::from_millis(3100));
    assert!(connects(&mut kernel, "20.0.0.2"));
}

#[test]
fn an_answer_to_a_question_that_left_before_the_filter_passes_and_teaches_nothing() {
    let unsolicited = datagram(53, 4000, &answer(&query(7, "a.example", 1), 60, &[LENT]));
    let unsolicited = to(frame::LOCAL, frame::UDP, unsolicited).from(RESOLVER);
    for (opening, action) in [(true, PASS), (false, DROP)] {
        let image = bpffs::image(NAMED);
        let mut kernel = Kernel::of(&image);
        let terms = Terms {
            opening,
            ..Terms::default()
        };
        kernel.datapath.replace_on(&image, terms).unwrap();
        assert_eq!(kernel.ingress(&unsolicited.bytes()).action, action);
        assert!(!connects(&mut kernel, LENT));
    }
}

#[test]
fn before_the_first_policy_nothing_was_judged() {
    let state_dir = StateDir::new();
    let image = bpffs::image(NAMED);
    let mut datapath = Datapath::load(state_dir.path(), &image).unwrap();
    let wait = Terms::to_confirm(Duration::from_secs(1));
    datapath.enforce(&image, wait).unwrap();
    datapath.attach(&image, On::default(), wait).unwrap();
    let mut kernel = Kernel::with(datapath, state_dir);
    assert!(!connects(&mut kernel, "8.8.8.8"));
    thread::sleep(Duration::from_millis(2100));
    assert!(connects(&mut kernel, "8.8.8.8"));
    let unsolicited = datagram(53, 4000, &answer(&query(7, "x.test", 1), 60, &[LENT]));
    let unsolicited = to(frame::LOCAL, frame::UDP, unsolicited).from(RESOLVER);
    assert_eq!(kernel.ingress(&unsolicited.bytes()).action, PASS);
}

//! Options as the kernel takes them: every length, every number, however often.

use std::os::fd::AsRawFd;

use super::*;

/// setsockopt(2) with this value, inside.
fn set(world: &World, family: AddressFamily, level: i32, option: i32, value: &[u8]) -> Errno {
    let ask = || {
        let socket = socket(family, SockType::Raw, SockFlag::empty(), None).unwrap();
        let length = value.len() as libc::socklen_t;
        // SAFETY: as long as is said.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                value.as_ptr().cast(),
                length,
            )
        };
        Errno::result(set).err().unwrap_or(Errno::UnknownErrno)
    };
    world.protected().run(ask).unwrap()
}

/// What stands for "granted".
const GRANTED: Errno = Errno::UnknownErrno;

#[test]
fn the_option_is_refused_in_any_length_and_only_a_whole_zero_is_none() {
    let (world, other) = (World::new(None), World::new(None));
    let _daemon = world.enforce(ALLOW);
    let bypass = |world: &World, value: &[u8]| {
        let option = libc::PACKET_QDISC_BYPASS;
        set(
            world,
            AddressFamily::Packet,
            libc::SOL_PACKET,
            option,
            value,
        )
    };
    assert_eq!(bypass(&world, &[0; 4]), GRANTED);
    for value in [1u32, 2, 0x100, 0x0100_0000, u32::MAX] {
        assert_eq!(
            bypass(&world, &value.to_ne_bytes()),
            Errno::EPERM,
            "{value:x}"
        );
        assert_eq!(bypass(&other, &value.to_ne_bytes()), GRANTED, "{value:x}");
    }
    // The kernel takes four bytes; another one might take more, and look at the first.
    for length in [1, 2, 3, 5, 8, 64, 4096, 4097, 8192] {
        for byte in [0, 1] {
            let value = vec![byte; length];
            assert_eq!(bypass(&world, &value), Errno::EPERM, "{length} of {byte}");
            assert_eq!(bypass(&other, &value), Errno::EINVAL, "{length} of {byte}");
        }
    }
}

#[test]
fn no_option_of_af_xdp_is_granted() {
    let (world, other) = (World::new(None), World::new(None));
    let _daemon = world.enforce(ALLOW);
    let family = |world: &World, option| {
        let xdp = || {
            // SAFETY: a system call without pointers.
            let opened = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0) };
            let socket = Errno::result(opened).ok()?;
            let value = 64u32;
            // SAFETY: as long as is said, and the socket is ours.
            let set = unsafe {
                let value = std::ptr::from_ref(&value).cast();
                let set = libc::setsockopt(socket, libc::SOL_XDP, option, value, 4);
                let said = Errno::result(set).err().unwrap_or(GRANTED);
                libc::close(socket);
                said
            };
            Some(set)
        };
        world.protected().run(xdp).unwrap()
    };
    // Of the receiving ring, the one that every kernel grants.
    let Some(granted) = family(&other, 2) else {
        return eprintln!("no AF_XDP here");
    };
    assert_eq!(granted, GRANTED);
    for option in 0..16 {
        assert_eq!(family(&world, option), Some(Errno::EPERM), "{option}");
        assert_ne!(family(&other, option), Some(Errno::EPERM), "{option}");
    }
}

#[test]
fn whoever_asks_a_thousand_times_is_counted_a_thousand_times_and_told_less_often() {
    const ASKED: u64 = 1000;
    let world = World::new(None);
    let _daemon = world.enforce(ALLOW);
    for _ in 0..ASKED {
        assert!(!is_granted(&world));
    }
    assert_eq!(raw_sockets(&world, "dropped_packets"), ASKED);
    let lost = || {
        world.metric("netfilter_events_lost_total{stage=\"rate_limit\"}")
            + world.metric("netfilter_events_lost_total{stage=\"ring_full\"}")
    };
    let told = || {
        said(&world.daemon(&["events"]))
            .matches("asked for a packet socket")
            .count() as u64
    };
    assert!(
        eventually(|| told() + lost() == ASKED),
        "{} {}",
        told(),
        lost()
    );
    assert!(told() >= 600 && lost() > 0, "{} {}", told(), lost());
}

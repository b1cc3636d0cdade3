//! Full and read-only file systems.

use std::{fs, io::Write};

use netfilter_daemon::lab::mounts;
use nix::mount::{MsFlags, mount};

use super::{POLICY, in_force, orphaned, refused, run, world};
use crate::world::World;

const RUN: &str = "/run/netfilter-daemon";
const BPFFS: &str = "/sys/fs/bpf";

fn remount(world: &World, place: &str, flags: MsFlags, options: &str) {
    let remount = || {
        mount::<str, _, str, _>(
            None,
            place,
            None,
            MsFlags::MS_REMOUNT | flags,
            Some(options),
        )
    };
    world.protected().run(remount).unwrap().unwrap();
}

/// Until nothing goes in any more.
fn fill(world: &World) {
    remount(world, RUN, MsFlags::empty(), "size=64k");
    let fill = || {
        let mut file = fs::File::create(format!("{RUN}/filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    world.protected().run(fill).unwrap();
}

#[test]
fn on_a_full_disk_a_start_says_what_cannot_be_written_and_changes_nothing() {
    let world = world();
    orphaned(&world);
    let lock = format!("{RUN}/sys-fs-bpf-netfilter.lock");
    world
        .protected()
        .run(|| fs::remove_file(&lock).unwrap())
        .unwrap();
    fill(&world);
    refused(run(&world), &["cannot write", &lock, "is full"]);
    in_force(&world);
    let free = || fs::remove_file(format!("{RUN}/filler")).unwrap();
    world.protected().run(free).unwrap();
    let _daemon = world.start();
    in_force(&world);
}

#[test]
fn a_daemon_whose_disk_fills_up_reloads_and_detaches() {
    let world = world();
    let _daemon = world.enforce(POLICY);
    fill(&world);
    in_force(&world);
    assert!(world.daemon(&["reload"]).status.success());
    assert!(world.get("/healthz").ends_with("ok\n"));
    in_force(&world);
    assert!(world.daemon(&["detach"]).status.success());
    assert!(world.connects("192.0.2.66", 443));
}

#[test]
fn a_state_directory_that_became_read_only_stays_in_force_and_is_named() {
    let world = world();
    orphaned(&world);
    remount(&world, BPFFS, MsFlags::MS_RDONLY, "");
    refused(
        run(&world),
        &[mounts::STATE_DIR, "ead-only file system", "remount,rw"],
    );
    in_force(&world);
    remount(&world, BPFFS, MsFlags::empty(), "");
    let _daemon = world.start();
    in_force(&world);
}

#[test]
fn a_read_only_run_directory_is_named() {
    let world = world();
    orphaned(&world);
    remount(&world, RUN, MsFlags::MS_RDONLY, "");
    refused(run(&world), &[RUN, "ead-only file system", "remount,rw"]);
    in_force(&world);
}

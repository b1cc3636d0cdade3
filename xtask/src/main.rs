//! Developer commands. `cargo xtask demo` shows the product, `cargo xtask test`
//! runs what CI runs.

mod bench;
mod build;
mod catalogue;
mod command;
mod deb;
mod fuzz;
mod load;
mod package;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Purpose;

/// Developer commands of netfilter-daemon
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need, if it is missing
    Setup,
    /// Build target/release/netfilter-daemon
    Build,
    /// Build the Debian package, in target/debian
    Deb,
    PackageTest(package::PackageTest),
    /// Build the daemon and run its exfiltration lab (as root)
    Demo(build::Demo),
    /// Run everything that CI runs
    Test(test::Test),
    Chaos(build::Chaos),
    /// Run the lab and the integration tests on another kernel, under qemu
    Vmtest(vm::Vmtest),
    Fuzz(fuzz::Fuzz),
    /// Measure the datapath (as root)
    Bench(build::Bench),
    Load(load::Load),
    /// Build the BPF programs alone and print where the object is
    Object,
    Catalogue(catalogue::Catalogue),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup => setup::run(Purpose::Tests),
        Task::Build => build::daemon(),
        Task::Deb => deb::run().map(drop),
        Task::PackageTest(arguments) => package::run(&arguments),
        Task::Demo(arguments) => build::demo(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Chaos(arguments) => build::chaos(&arguments),
        Task::Vmtest(arguments) => vm::run(&arguments).map(drop),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Bench(arguments) => build::bench(&arguments),
        Task::Load(arguments) => load::run(&arguments),
        Task::Object => build::object(),
        Task::Catalogue(arguments) => catalogue::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

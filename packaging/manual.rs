//! Writes the manual pages and the shells' completions, as the command line describes itself:
//! `manual DIRECTORY`. Of the package only: the daemon does without what makes them.

use std::{env, fs, io, path::Path};

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

const NAME: &str = "netfilter-daemon";

fn main() -> io::Result<()> {
    let Some(directory) = env::args_os().nth(1) else {
        return Err(io::Error::other("usage: manual DIRECTORY"));
    };
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    let mut command = netfilter_daemon::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, NAME, directory)?;
    }
    // Gives each command its whole name, `netfilter-daemon-tags-list`.
    command.build();
    page(directory, &command)
}

/// One of the command, and one of each that is below it.
fn page(directory: &Path, command: &Command) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    let man = Man::new(command.clone()).section("8");
    man.render(&mut text)?;
    fs::write(directory.join(format!("{name}.8")), text)?;
    for below in command.get_subcommands() {
        if below.get_name() != "help" && !below.is_hide_set() {
            page(directory, below)?;
        }
    }
    Ok(())
}

//! Writes the manual pages and the shells' completions, as the command line describes itself:
//! `manual DIRECTORY`. Of the package only: the daemon does without what makes them.

use std::{env, fs, io, path::Path};

use clap::Command;
use clap_complete::{Shell, generate, generate_to};
use clap_mangen::Man;

const NAME: &str = "netfilter-daemon";

fn main() -> io::Result<()> {
    let Some(directory) = env::args_os().nth(1) else {
        return Err(io::Error::other("usage: manual DIRECTORY"));
    };
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    let mut command = netfilter_daemon::cli::command();
    for shell in [Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, NAME, directory)?;
    }
    bash(directory, &mut command)?;
    // It has no page.
    let mut command = netfilter_daemon::cli::command().disable_help_subcommand(true);
    // Gives each command its whole name, `netfilter-daemon-tags-list`.
    command.build();
    page(directory, &command)
}

/// clap_complete writes the hyphen of the program's name in two ways, so that nothing is completed
/// behind a command (clap-rs/clap#6421).
fn bash(directory: &Path, command: &mut Command) -> io::Result<()> {
    let mut script = Vec::new();
    generate(Shell::Bash, command, NAME, &mut script);
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    let [wrong, right] = ["__subcmd__", "__"].map(|hyphen| NAME.replace('-', hyphen));
    fs::write(
        directory.join(format!("{NAME}.bash")),
        script.replace(&wrong, &right),
    )
}

/// One of the command, and one of each that is below it.
fn page(directory: &Path, command: &Command) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    let man = Man::new(command.clone()).section("8");
    man.render(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    // The end of `--help`: commands, which are not to be hyphenated.
    let text = text
        .replace("\n.SH EXTRA\nExamples:\n", "\n.SH EXAMPLES\n.nf\n")
        .replace("\n.SH EXTRA\nExample: ", "\n.SH EXAMPLES\n.nf\n  ");
    fs::write(directory.join(format!("{name}.8")), text)?;
    for below in command.get_subcommands() {
        if !below.is_hide_set() {
            page(directory, below)?;
        }
    }
    Ok(())
}

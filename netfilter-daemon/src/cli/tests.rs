use std::path::Path;

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example_and_says_what_it_does() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(after.contains("Example"), "{name} has no example");
        assert!(
            after.contains(&format!("netfilter-daemon {name}")),
            "{name}: {after}"
        );
        assert!(
            command.get_about().is_some(),
            "{name} does not say what it does"
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{name}: {} is not explained",
                argument.get_id()
            );
        }
    }
}

#[test]
fn all_commands_that_print_state_take_json() {
    for name in [
        "check", "doctor", "explain", "status", "events", "top", "reload", "detach", "lab",
    ] {
        let command = Cli::command();
        let command = command.find_subcommand(name).unwrap();
        assert!(
            command
                .get_arguments()
                .any(|argument| argument.get_id() == "json"),
            "{name}"
        );
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let cli = Cli::parse_from(["netfilter-daemon", "run", "--policy", "p.yaml"]);
    let Command::Run(run) = cli.command else {
        panic!("not run")
    };
    assert_eq!(run.state_dir.state_dir, Path::new("/sys/fs/bpf/netfilter"));
    assert_eq!(run.listen.to_string(), "127.0.0.1:9477");
    assert!(run.interfaces.is_empty() && !run.audit && !run.dry_run && !run.detach_on_exit);
}

#[test]
fn a_wrong_policy_is_2_and_begins_with_its_place() {
    let error =
        policy::source::load(Path::new("/nowhere/policy.yaml"), &|_| unreachable!()).unwrap_err();
    let error = anyhow::Error::from(loaded::Error::from(error));
    assert_eq!(code(&error), WRONG);
    assert!(told(&error).starts_with("/nowhere/policy.yaml: cannot read the policy: "));
}

#[test]
fn a_system_that_refuses_is_3() {
    let denied = || io::Error::from(ErrorKind::PermissionDenied);
    let system = policy::Error::System {
        operation: "read",
        source: denied(),
    };
    assert_eq!(code(&loaded::Error::from(system).into()), REFUSED);
    assert_eq!(code(&interfaces::Error::List(denied()).into()), REFUSED);
    assert_eq!(code(&denied().into()), REFUSED);
    assert!(told(&denied().into()).starts_with("error: "));
}

#[test]
fn wrong_usage_is_2_even_behind_a_context() {
    let error = anyhow::Error::from(interfaces::Error::None).context("cannot start");
    assert_eq!(code(&error), WRONG);
    let error = explaining::Question::parse("*.pypi.org", None).unwrap_err();
    assert_eq!(code(&error.into()), WRONG);
}

use std::process::ExitCode;

fn main() -> ExitCode {
    netfilter_daemon::cli::main()
}

//! `netfilter-daemon lab sink`

use std::{
    io::{Write, stdout},
    net::{Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::print;
use crate::lab::remote::{PORT, Server};

/// Collect what `lab --sink` sends from another machine
///
/// Takes in all frames at the interface, and connections at ports that the channels
/// use, in search of the secret that the lab there sends; keeps nothing else, and
/// sends nothing but answers. The lab asks at a port of its own what arrived, so
/// that port should be reached from there only. One run at a time, as many as come,
/// until Ctrl-C. Needs root, and the same version of the program on both machines.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo netfilter-daemon lab sink --interface eth0")]
pub(super) struct Listen {
    /// Where the lab asks what arrived
    #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))]
    listen: SocketAddr,

    /// The interface at which frames are taken in, whomever they are addressed to
    /// [default: all, and only what is for this machine]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
}

impl Listen {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let started = Server::start(self.listen, self.interface.as_deref());
        let (server, refused) = started.context("cannot collect here")?;
        for (port, why) in refused {
            tell(&format!("TCP port {port} is somebody else's here: {why}"));
        }
        let at = server.address()?;
        let what = match &self.interface {
            Some(interface) => format!("what passes at {interface}"),
            None => "what arrives".to_owned(),
        };
        print(&format!(
            "lab sink: collecting {what}; asked at {at}; Ctrl-C ends it\n"
        ))?;
        Err(server.serve(&tell)).context("cannot be asked any more")
    }
}

/// Nobody needs to read it.
fn tell(what: &str) {
    writeln!(stdout(), "lab sink: {what}").ok();
}

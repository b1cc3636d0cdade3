//! The battery against a sink on another machine, from this machine itself.
//!
//! What was put into force for it is lifted whatever happens: at the end, when the
//! lab is interrupted, by the daemon when the lab is killed, and by the programs in
//! the kernel when both are.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{self, Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::{
    datapath::{self, State},
    policy::{self, Action, Destination, Policy, service_tag::lists::Source, source},
    tags::{
        kept::Kept,
        store::{self, Store},
    },
};

mod control;
mod enforcement;
mod host;
mod route;
mod server;

use super::{
    PASSES, Step, Steps,
    battery::{
        self, ATTEMPTS, Passage, Sink,
        field::{Field, OTHERS, Side},
        ledger::Round,
    },
    drops,
    namespace::{self, Namespace},
    probe::Family,
    report::{HOST, Report},
    rows_of, seed,
    selection::Selection,
    trials,
};
use control::Remote;
use enforcement::Enforcement;
pub use enforcement::Lifted;
pub use host::Host;
use route::Route;
pub use server::{PORT, Server};

/// What is about to be done. Nothing has been done yet but to talk to the sink.
pub struct Plan {
    sink: Remote,
    field: Field,
    file: PathBuf,
    rules: usize,
    /// Of the daemon that the lab starts.
    state_dir: PathBuf,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lab sends frames of its own and loads BPF programs; run it as root")]
    NotRoot,
    #[error(transparent)]
    Policy(#[from] policy::Error),
    #[error("{0} has no address to which the lab could send")]
    NoAddress(Host),
    #[error(
        "{}the sink {sink}, so that what arrives there shows nothing; choose one that no rule allows",
        match rule { Some(rule) => format!("rule `{rule}` of the policy allows "), None => "the policy's resolver is ".into() }
    )]
    Approved { sink: IpAddr, rule: Option<String> },
    #[error(
        "a filter is already in force on {interfaces}, and the lab must also send without one; \
         lift it before: netfilter-daemon detach --state-dir {}", state_dir.display()
    )]
    InForce {
        interfaces: String,
        state_dir: PathBuf,
    },
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    #[error("the sink at {address}: {source}")]
    Sink {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the sink at {address} refuses: {why}")]
    Refused { address: SocketAddr, why: String },
    #[error(transparent)]
    Namespace(#[from] namespace::Error),
    #[error("how packets get to {to} is unknown: {why}")]
    Route { to: IpAddr, why: String },
    #[error("cannot prepare the battery: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Battery(#[from] battery::Error),
    #[error(transparent)]
    Daemon(#[from] super::daemon::Error),
}

impl Plan {
    /// Looks whether it can be done, and agrees with the sink.
    pub fn of(hosts: &[Host], file: &Path, state_dir: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let own = Namespace::own()?;
        let policy = load(file)?;
        let addresses = host::resolve(hosts)?;
        for address in &addresses {
            refuse_approved(&policy, address.ip())?;
        }
        let state_dir = path::absolute(state_dir)?;
        let mut name = state_dir.file_name().unwrap_or_default().to_owned();
        name.push("-lab");
        let of_lab = state_dir.with_file_name(name);
        for directory in [state_dir, of_lab.clone()] {
            refuse_filtered(directory)?;
        }
        let sink = Remote::new(addresses, seed()?);
        sink.greet()?;
        Ok(Self {
            field: field(&own, &policy, sink.addresses())?,
            sink,
            file: path::absolute(file)?,
            rules: policy.rules.len(),
            state_dir: of_lab,
        })
    }

    /// What will be done to the machine.
    pub fn told(&self, selection: &Selection) -> String {
        let channels = selection.channels.len();
        let sinks = self.sink.addresses().iter();
        let sinks: Vec<_> = sinks.map(|address| address.ip().to_string()).collect();
        let interface = &self.field.interface;
        format!(
            "This will, on this machine itself:\n  \
             - send 64 KiB of random data by each of {channels} channels from {interface} to {}, without a\n    \
             filter; forged and malformed frames are among them, so the network should be yours\n  \
             - put {} ({} rules) into force on {interface}: what it does not allow is cut there,\n    \
             open connections included (`run --dry-run` names them)\n  \
             - send by the channels again, which takes a minute or two, and lift the filter\n",
            sinks.join(" and "),
            self.file.display(),
            self.rules
        )
    }

    /// Does it. `interrupted` is told what was lifted, if somebody interrupts it, and
    /// ends the process.
    pub fn run(
        self,
        selection: &Selection,
        tell: &(dyn Fn(Step<'_>) + Sync),
        interrupted: fn(Lifted) -> !,
    ) -> Result<Report, Error> {
        let own = Namespace::own()?;
        let chosen = selection.numbered();
        let stage = |what: &str| tell(Step::Stage(what));
        let pass = |number, sink: &dyn Sink, drops: &dyn Fn() -> io::Result<_>| {
            let steps = Steps::new(tell, number, chosen.len());
            let passage = Passage {
                inside: &own,
                field: &self.field,
                sink,
                attempts: if number == 0 { ATTEMPTS } else { 1 },
                drops,
                told: &|channel| steps.tell(channel),
            };
            passage.run(&chosen, self.sink.round(number))
        };
        let parting = self.sink.clone();
        let parting = move || parting.end();
        let enforcement = Enforcement::none(&self.state_dir, parting, interrupted)?;

        stage(PASSES[0]);
        let without = pass(0, &self.sink, &|| Ok(Vec::new()))?;
        stage("starting the daemon");
        let listener = free_port()?;
        // As long as the sink can be reached.
        self.sink.begin(self.sink.round(1))?;
        stage(&enforcement.begin(&self.file, &self.field.interface, listener)?);
        stage(PASSES[1]);
        let sink = Behind {
            sink: &self.sink,
            lift: &|| {
                let lifted = enforcement.lift().map_err(io::Error::other);
                stage("the filter is lifted");
                lifted
            },
        };
        let through = pass(1, &sink, &|| drops::read(&own, listener))?;
        self.sink.end();
        Ok(Report {
            policy: None,
            channels: rows_of(selection, vec![(HOST, trials(without, through))]),
        })
    }
}

/// A sink that is behind the filter: it expects the secrets already, and cannot be
/// asked until the filter is lifted.
struct Behind<'a> {
    sink: &'a Remote,
    lift: &'a dyn Fn() -> io::Result<()>,
}

impl Sink for Behind<'_> {
    fn begin(&self, _: Round) -> io::Result<()> {
        Ok(())
    }

    fn arrived(&self) -> io::Result<Vec<usize>> {
        (self.lift)()?;
        self.sink.arrived()
    }
}

fn load(file: &Path) -> Result<Policy, Error> {
    let store = Store::new(store::DIRECTORY);
    let kept = Kept::of(file, &store);
    let given = |source: &Source| match source {
        Source::File(written) => source::list::beside(file, written),
        Source::Url(_) | Source::BuiltIn => kept.catalogue(source),
    };
    Ok(source::load(file, &given)?)
}

fn refuse_approved(policy: &Policy, sink: IpAddr) -> Result<(), Error> {
    let allows = |destination: &Destination| match destination {
        Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => {
            prefixes.iter().any(|prefix| prefix.contains(&sink))
        }
        Destination::Name(_) => false,
    };
    let mut rules = policy.rules.iter();
    let rule = rules.find(|rule| rule.action == Action::Allow && allows(&rule.destination));
    match rule {
        Some(rule) => Err(Error::Approved {
            sink,
            rule: Some(rule.name.clone()),
        }),
        None if policy.resolvers.contains(&sink) => Err(Error::Approved { sink, rule: None }),
        None => Ok(()),
    }
}

fn refuse_filtered(state_dir: PathBuf) -> Result<(), Error> {
    let Some(state) = State::open(&state_dir)? else {
        return Ok(());
    };
    let filtered = state.attachments()?;
    if filtered.is_empty() {
        return Ok(());
    }
    let interfaces = filtered.into_iter().map(|it| it.interface);
    Err(Error::InForce {
        interfaces: interfaces.collect::<Vec<_>>().join(", "),
        state_dir,
    })
}

/// What channels have to go by: of the policy's places the sink is none, but the
/// address that no rule allows.
fn field(own: &Namespace, policy: &Policy, sinks: &[SocketAddr]) -> Result<Field, Error> {
    let denies = |address: IpAddr| {
        policy.rules.iter().any(|rule| match &rule.destination {
            Destination::Tag { prefixes, .. } | Destination::Prefixes(prefixes) => {
                rule.action == Action::Deny && prefixes.iter().any(|it| it.contains(&address))
            }
            Destination::Name(_) => false,
        })
    };
    let mut field: Option<Field> = None;
    for address in sinks.iter().map(SocketAddr::ip) {
        let route = Route::to(own, address)?;
        let field = match &mut field {
            Some(field) => field,
            None => field.insert(Field {
                gateway: route.gateway,
                ..Field::of(own, &route.interface)?
            }),
        };
        if field.interface != route.interface {
            let why = format!(
                "it is behind {}, and the sink's other address behind {}; name one of them",
                route.interface, field.interface
            );
            return Err(Error::Route { to: address, why });
        }
        let side = Some(Side {
            local: route.local,
            denied: address,
            // What has one of these allowed needs a sink that sends as others.
            others: [address; OTHERS],
            forbidden: denies(address).then_some(address),
            approved: None,
            resolver: None,
        });
        match Family::of(address) {
            Family::V4 => field.ipv4 = side,
            Family::V6 => field.ipv6 = side,
        }
    }
    field.ok_or_else(|| io::Error::other("the sink has no address").into())
}

/// For `/metrics`: the usual one may be somebody else's here.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

//! The daemon: puts a policy into force and looks after it until told to stop.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch as channel},
    task::block_in_place,
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::{
    bypass::{self, Rights},
    control::{Ask, Socket},
    datapath::{self, Attachment, Datapath, On, State, Terms},
    interfaces::{self, Choice, Places},
    policy::Mode,
    refresh::{self, Names},
    serve::{self, web::Guard},
    tags::{self, Update, store::Store},
};

mod answers;
pub mod audit;
pub(crate) mod bpffs;
pub mod container;
pub mod denials;
pub mod event;
mod fields;
mod files;
pub mod groundwork;
pub mod heap;
pub mod history;
mod hour;
mod keeper;
pub mod loaded;
mod memory;
mod minute;
mod notify;
pub mod opening;
pub mod overview;
mod pending;
pub mod privileges;
mod reading;
pub mod repairs;
mod rules;
mod scout;
pub mod sender;
pub mod status;
mod subject;
mod tally;
mod users;
mod view;
mod watch;
mod ways_out;

use denials::Denials;
use groundwork::Groundwork;
use keeper::Keeper;
use loaded::Loaded;
use pending::{Former, Pending};
use reading::{Readings, Wanted};
use status::Place;
use view::View;
use watch::{Stamp, Subnets, Watch};

/// Between two removals of expired addresses: the table holds what a minute of
/// the busiest resolver brings.
const TIDY: Duration = Duration::from_secs(30);

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Setup {
    pub policy: PathBuf,
    pub listen: SocketAddr,
    /// Who may read there.
    pub web: Arc<Guard>,
    pub state_dir: PathBuf,
    /// Lists of service tags.
    pub tags: Store,
    pub audit: bool,
    pub detach_on_exit: bool,
    /// Unless somebody confirms the policy within this time, the state before comes back.
    pub confirm_within: Option<Duration>,
}

impl Setup {
    fn web_stamps(&self) -> Vec<Option<Stamp>> {
        let files = self.web.files();
        files.iter().map(|file| Stamp::of(file)).collect()
    }
}

/// Packets are filtered; [`Daemon::run`] looks after that.
pub struct Daemon {
    setup: Setup,
    /// Before the datapath, whose programs it uses.
    keeper: Keeper,
    datapath: Datapath,
    view: Arc<View>,
    denials: Arc<Denials>,
    health: Arc<tags::keep::Health>,
    watch: Watch<Stamp>,
    subnets: Subnets,
    /// The web configuration and what it names.
    web: Watch<Vec<Option<Stamp>>>,
    names: channel::Sender<Names>,
    lists: channel::Sender<tags::keep::InForce>,
    /// Newer lists of service tags are stored.
    newer_lists: mpsc::Receiver<()>,
    announcement: String,
    signals: Signals,
    asks: mpsc::Receiver<Ask>,
    pending: Option<Pending>,
    readings: Readings,
    /// Ends the control socket after the answers under way.
    stop: oneshot::Sender<()>,
    control: tokio::task::JoinHandle<()>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Why the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Signal,
    /// The filter is lifted already.
    Detached,
    /// The state before its start is back.
    Unconfirmed,
}

impl Daemon {
    /// Puts the policy into force; `files` is what became of its files of service
    /// tags. Whatever was in force before remains so if this fails. Needs a multi-threaded runtime.
    pub async fn start(
        setup: Setup,
        loaded: Loaded,
        files: &[Update],
        choice: Choice,
        groundwork: Groundwork,
    ) -> anyhow::Result<Self> {
        let signals = Signals::listen().context("cannot listen for signals")?;
        let Groundwork {
            claim,
            listener,
            owners,
            ground,
            scout,
        } = groundwork;
        let socket = Socket::bind(claim)?;

        let places = choice.places(&interfaces::present()?);
        tracing::info!(
            "filtering {}, chosen by {}{}",
            or_none(&places.uplinks),
            choice.by,
            to_workloads(&places.workloads)
        );
        let state = State::at(&setup.state_dir);
        let former = state.attachments()?;
        let lent = match former.is_empty() {
            true => opening::prepare(&loaded, &owners).await?,
            // What is in force has learned its addresses.
            false => Vec::new(),
        };
        let terms = Terms {
            confirm_within: setup.confirm_within,
            opening: former.is_empty(),
        };
        let start = || -> Result<Datapath, datapath::Error> {
            let mut datapath = Datapath::load(&setup.state_dir, &loaded.image)?;
            datapath.enforce(&loaded.image, terms)?;
            datapath.lend(&loaded.image, &lent)?;
            let on = On {
                uplinks: &places.uplinks,
                workloads: &places.workloads,
            };
            datapath.attach(&loaded.image, on, terms)?;
            Ok(datapath)
        };
        let mut datapath = block_in_place(start)?;
        // First nobody gets a way past the filter any more, then those are found that have one.
        block_in_place(|| {
            if let Err(unguarded) = datapath.guard(&ground) {
                tracing::warn!("{}", unguarded.sentence());
            }
            for told in datapath.untold().into_iter().chain(bypass::rdma()) {
                tracing::warn!("{told}");
            }
            scout.look(Rights {
                users: loaded.image.users,
                closes: loaded.policy.mode == Mode::Enforce,
            });
        });
        let pending = setup
            .confirm_within
            .map(|within| Pending::new(within, Former::Start(former)));
        let generation = datapath.generation();
        let filtered = filtered(&places, &state.attachments()?);
        let announcement = announcement(&loaded, &filtered, generation);
        let keeper = block_in_place(|| keep(&mut datapath, choice))?;
        let denials = Arc::new(Denials::default());
        let health = Arc::new(tags::keep::Health::default());
        health.tell(files);
        let view = Arc::new(View::new(
            state,
            Arc::clone(&denials),
            Arc::clone(&health),
            keeper.shared(),
            setup.policy.clone(),
            &loaded,
            generation,
        )?);
        view.judged_by(&datapath);

        let (names, wanted) = channel::channel(Names::of(&loaded.policy));
        let (sender, asks) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(denials::keep(
            Arc::clone(&denials),
            datapath.take_events()?,
            datapath.take_attempts()?,
            datapath.take_resolutions()?,
            datapath.notebook()?,
        ));
        tokio::spawn(refresh::keep(wanted));
        let (lists, in_force) = channel::channel(tags::keep::InForce::of(&loaded.policy));
        let (newer, newer_lists) = mpsc::channel(1);
        let (policy, store) = (setup.policy.clone(), setup.tags.clone());
        let told = Arc::clone(&health);
        tokio::spawn(tags::keep::keep(policy, store, in_force, told, newer));
        if let Some(gap) = setup.web.gap(setup.listen) {
            tracing::warn!("{gap}");
        }
        tokio::spawn(show(listener, Arc::clone(&view), Arc::clone(&setup.web)));
        let control = tokio::spawn(socket.serve(sender, stopped));
        let watch = Watch::new(loaded.stamp);
        let subnets =
            Subnets::new(loaded.connected).context("cannot listen for changed addresses")?;
        let web = Watch::new(Some(setup.web_stamps()));
        drop((loaded.policy, loaded.image));
        heap::give_back();
        Ok(Self {
            setup,
            keeper,
            datapath,
            view,
            denials,
            health,
            watch,
            subnets,
            web,
            names,
            lists,
            newer_lists,
            announcement,
            signals,
            asks,
            pending,
            readings: Readings::default(),
            stop,
            control,
        })
    }

    /// `enforcing on eth0, eth1 (policy: 8 rules, generation 4)`
    pub fn announcement(&self) -> &str {
        &self.announcement
    }

    /// Looks after the filter until a signal or `detach` ends it.
    pub async fn run(mut self) -> anyhow::Result<End> {
        notify::ready(&self.announcement);
        let end = self.attend().await;
        notify::stopping();
        if matches!(end, End::Signal) {
            self.leave()?;
        }
        // Nobody receives this only if the socket's task is gone already.
        self.stop.send(()).ok();
        self.control.await.context("the control socket failed")?;
        Ok(end)
    }

    async fn attend(&mut self) -> End {
        let mut tidying = interval(TIDY);
        tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let keeper = self.keeper.shared();
            tokio::select! {
                _ = self.signals.terminate.recv() => return End::Signal,
                _ = self.signals.interrupt.recv() => return End::Signal,
                _ = self.signals.hangup.recv() => {
                    self.want(Wanted::by("SIGHUP"));
                }
                Some(ask) = self.asks.recv() => if let Some(end) = self.answer(ask) {
                    return end;
                },
                () = over(self.pending.as_ref()) => if let Some(end) = self.put_back() {
                    return end;
                },
                Some(()) = self.newer_lists.recv(), if self.pending.is_none() => {
                    self.want(Wanted::by("a new list of service tags"));
                }
                read = self.readings.read() => self.finish(read),
                () = keeper.second() => self.turn(),
                _ = tidying.tick() => self.tidy(),
            }
        }
    }

    fn turn(&mut self) {
        notify::alive();
        if let Err(error) = block_in_place(|| self.view.turn()) {
            tracing::error!("cannot read the counters: {error}");
        }
        if self.web.poll(Some(self.setup.web_stamps())) {
            self.read_web();
        }
        let may_change = self.pending.is_none() && self.readings.is_idle();
        if may_change && self.watch.poll(Stamp::of(&self.setup.policy)) {
            self.want(Wanted::by("a change of the file"));
        } else if may_change && self.subnets.poll() {
            self.want(Wanted::by("a change of the machine's subnets"));
        }
    }

    /// Who may read is another matter than what may leave: this waits for no reload.
    fn read_web(&mut self) {
        // Before: what changes meanwhile is seen as another edition.
        let edition = self.setup.web_stamps();
        match block_in_place(|| self.setup.web.reload()) {
            Ok(()) => tracing::info!("read the web configuration again"),
            Err(error) => tracing::error!(
                "the web configuration is not changed; who may read stays as it was:\n{error}"
            ),
        }
        self.web.read(Some(edition));
    }

    /// Makes room among the learned addresses, and in the memory.
    fn tidy(&self) {
        heap::give_back();
        match block_in_place(|| self.datapath.state().forget_expired()) {
            Ok(forgotten) => tracing::debug!("{forgotten} learned addresses have expired"),
            Err(error) => tracing::error!("expired addresses stay: {error}"),
        }
        if let Err(error) = block_in_place(|| self.datapath.state().thin_remotes()) {
            tracing::error!("denied packets take longer than they must: {error}");
        }
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let state_dir = self.setup.state_dir.display();
        block_in_place(|| self.keeper.stop());
        if self.setup.detach_on_exit {
            let lifted = datapath::detach(&self.setup.state_dir)?;
            let lifted: Vec<Place> = lifted.into_iter().map(Place::from).collect();
            tracing::warn!("stopping; the filter is lifted{}", on(&lifted));
        } else {
            tracing::info!(
                "stopping; the filter stays in force on {}; interfaces that come are not filtered; \
                 `netfilter-daemon detach --state-dir {state_dir}` lifts it",
                self.view.filtered().join(", ")
            );
        }
        Ok(())
    }
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn over(pending: Option<&Pending>) {
    match pending {
        Some(pending) => sleep_until(pending.until()).await,
        None => std::future::pending().await,
    }
}

fn keep(datapath: &mut Datapath, choice: Choice) -> anyhow::Result<Keeper> {
    Keeper::start(datapath.hooks()?, choice).context("cannot listen for new interfaces")
}

fn announcement(loaded: &Loaded, interfaces: &[String], generation: u32) -> String {
    let verb = match loaded.policy.mode {
        Mode::Enforce => "enforcing",
        Mode::Report => "auditing",
    };
    let rules = loaded.policy.rules.len();
    format!(
        "{verb} on {} (policy: {rules} rules, generation {generation})",
        or_none(interfaces)
    )
}

/// The chosen ones, and those that an earlier daemon filtered and left so.
fn filtered(places: &Places, attached: &[Attachment]) -> Vec<String> {
    let mut names = [&places.uplinks[..], &places.workloads].concat();
    for place in attached {
        if !names.contains(&place.interface) {
            names.push(place.interface.clone());
        }
        if let Some(by) = place.hook.of_workload() {
            tracing::info!("{} leads to a workload, judged by {by}", place.interface);
        }
    }
    names
}

/// Those that are to be filtered may all be absent.
fn or_none(interfaces: &[String]) -> String {
    match interfaces.is_empty() {
        true => "no interface".to_owned(),
        false => interfaces.join(", "),
    }
}

fn to_workloads(workloads: &[String]) -> String {
    match workloads.is_empty() {
        true => String::new(),
        false => format!("; to workloads: {}", workloads.join(", ")),
    }
}

fn on(places: &[Place]) -> String {
    let names: Vec<&str> = places
        .iter()
        .map(|place| place.interface.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" on {}", names.join(", "))
    }
}

/// The filter does not depend on being seen.
async fn show(listener: std::net::TcpListener, view: Arc<View>, web: Arc<Guard>) {
    if let Err(error) = serve::serve(listener, view, web).await {
        tracing::error!("the HTTP listener failed: {error}");
    }
}
